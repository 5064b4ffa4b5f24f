//! Where an endpoint's events go: its flows, compiled, and the egress of each.

use zen_core::dedupe::EventKey;
use zen_core::record::encode_routes;
use zen_rules::{Explanation, Flow, Flows, Matched, Matching, RawFlow, Routed, RuleError, Subject};

/// The flows of one endpoint.
pub struct Routing {
    flows: Flows,
    /// By the place of the flow in the configuration.
    egresses: Vec<String>,
    /// The routes of every event, where no flow has a condition.
    always: Option<Vec<Route<String>>>,
}

/// An egress and its targets for one event.
#[derive(Clone, Debug)]
struct Route<T> {
    egress: T,
    targets: Vec<T>,
}

impl Routing {
    /// Compiles flows; `egresses` has the one of each.
    pub fn compile(flows: &[RawFlow], egresses: Vec<String>, matching: Matching) -> Result<Self, RuleError> {
        assert_eq!(flows.len(), egresses.len(), "each flow leads to an egress");
        let flows = Flows::compile(flows, matching)?;
        let mut routing = Self { flows, egresses, always: None };
        if routing.flows.is_unconditional() {
            let routes = routing.routes(routing.flows.iter());
            let owned = |route: Route<&str>| Route {
                egress: route.egress.to_owned(),
                targets: route.targets.into_iter().map(str::to_owned).collect(),
            };
            routing.always = Some(routes.into_iter().map(owned).collect());
        }
        Ok(routing)
    }

    /// Decides which flows take an event.
    pub fn route(&self, subject: &Subject<'_>) -> Routed {
        self.flows.route(subject)
    }

    /// What each flow saw and decided.
    pub fn explain(&self, subject: &Subject<'_>) -> Explanation {
        self.flows.explain(subject)
    }

    /// Appends what stands in front of an event in the journal.
    pub fn encode(&self, out: &mut Vec<u8>, key: Option<&EventKey>, matched: Matched) {
        match &self.always {
            Some(routes) => {
                encode_routes(out, key, routes.iter().map(|route| (&*route.egress, &route.targets[..])));
            }
            None => {
                let routes = self.routes(self.flows.matched(matched));
                encode_routes(out, key, routes.iter().map(|route| (route.egress, &route.targets[..])));
            }
        }
    }

    /// The egresses of the flows that take an event; one may be there twice.
    pub fn egresses(&self, matched: Matched) -> impl Iterator<Item = &str> {
        self.flows.matched(matched).map(|flow| self.egresses[flow.index()].as_str())
    }

    /// Whether any condition looks at bodies.
    pub fn needs_json(&self) -> bool {
        self.flows.needs_json()
    }

    /// How many regular expressions the conditions hold, at most.
    pub fn patterns(&self) -> usize {
        self.flows.patterns()
    }

    /// Each target of an egress once, in the order of the flows.
    pub fn destinations(&self, egress: &str) -> Vec<&str> {
        let routes = self.routes(self.flows.iter());
        routes.into_iter().find(|route| route.egress == egress).map_or(Vec::new(), |route| route.targets)
    }

    /// How many of the flows may take one event.
    pub fn matching(&self) -> Matching {
        self.flows.matching()
    }

    fn routes<'a>(&'a self, flows: impl Iterator<Item = &'a Flow>) -> Vec<Route<&'a str>> {
        let mut routes: Vec<Route<&str>> = Vec::new();
        for flow in flows {
            let egress = self.egresses[flow.index()].as_str();
            let at = routes.iter().position(|route| route.egress == egress).unwrap_or_else(|| {
                routes.push(Route { egress, targets: Vec::new() });
                routes.len() - 1
            });
            for target in flow.targets() {
                if !routes[at].targets.contains(&target) {
                    routes[at].targets.push(target);
                }
            }
        }
        routes
    }
}
