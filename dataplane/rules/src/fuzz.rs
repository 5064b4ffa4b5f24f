//! Asserting functions over arbitrary bytes, for the fuzz targets and the property tests.

use std::ops::ControlFlow;

use serde::Deserialize;
use serde_json::Value;

use crate::document::Steps;
use crate::failover::{Failover, FailoverPolicy, HOUR_MS, Health, Hold};
use crate::{
    Document, Fault, Flows, Headers, Kind, Matching, Output, Path, Pattern, RawFlow, RawOutput, RawTransform,
    STEPS_MAX, Subject, Transform,
};

/// What a fuzzer may write: flows and outputs as JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    #[serde(default)]
    flows: Vec<RawFlow>,
    #[serde(default)]
    outputs: Vec<RawOutput>,
}

/// Any text is a path, a pattern and rules, or refused with a reason; what compiles decides the same each time.
pub fn fuzz_rules_compile(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(path) = Path::compile(text) {
        assert_eq!(path.as_str(), text);
    }
    if let Err(error) = Pattern::compile(text) {
        assert!(!error.to_string().is_empty());
    }
    let Ok(rules) = serde_json::from_str::<Rules>(text) else { return };
    for raw in &rules.outputs {
        match Output::compile(raw) {
            Ok(output) => assert_eq!(output.failover().is_some(), output.targets().count() > 1),
            Err(error) => assert!(error.to_string().contains(": ")),
        }
    }
    match Flows::compile(&rules.flows, Matching::All) {
        Ok(flows) => check_flows(&flows, b"{\"a\":[1,{\"b\":\"c\"}]}"),
        Err(error) => assert!(error.to_string().contains(": ")),
    }
}

/// A path in the first line, a body behind it: bounded, and the same whoever asks.
pub fn fuzz_rules_evaluate(data: &[u8]) {
    let at = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (path, body) = data.split_at(at);
    let body = body.get(1..).unwrap_or_default();
    check_flows(&fixed_flows(), body);
    let document = Document::new(body);
    let (Ok(root), Ok(Ok(path))) = (document.value(), std::str::from_utf8(path).map(Path::compile)) else {
        return;
    };
    let select = || {
        let mut selected = Vec::new();
        let end = path.visit(root, &Steps::new(), &mut |value| {
            selected.push(value);
            ControlFlow::Continue(())
        });
        (selected, end)
    };
    let (selected, end) = select();
    assert_eq!((&selected, &end), (&select().0, &select().1));
    assert!(selected.len() <= STEPS_MAX as usize);
    assert!(matches!(end, Ok(()) | Err(Fault::TooManySteps)));
    assert!(selected.len() <= 1 || !path.is_singular());
}

/// A transform as JSON in the first line, a body behind it: valid JSON within its bound, or a reason.
pub fn fuzz_rules_transform(data: &[u8]) {
    let at = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (raw, body) = data.split_at(at);
    let document = Document::new(body.get(1..).unwrap_or_default());
    let Ok(raw) = serde_json::from_slice::<RawTransform>(raw) else { return };
    let Ok(transform) = Transform::compile(&raw, "transform") else { return };
    let result = transform.apply(&document);
    assert_eq!(result, transform.apply(&document));
    match result {
        Ok(made) => {
            assert!(made.body.len() <= raw.output_bytes_max as usize);
            assert!(matches!(serde_json::from_slice(&made.body), Ok(Value::Object(_))));
            assert_eq!(made.content_type, raw.content_type);
        }
        Err(error) => assert!(!error.label().is_empty() && !error.to_string().is_empty()),
    }
}

/// A sequence of health and polls, three bytes each, against the promises of the policy.
pub fn fuzz_failover(data: &[u8]) {
    let Some((&[targets, after, cooldown, require, most], operations)) = data.split_first_chunk() else {
        return;
    };
    let times = |choice: u8| [0, 1, 30_000, 300_000, HOUR_MS][usize::from(choice % 5)];
    let policy = FailoverPolicy {
        switch_after_ms: times(after),
        cooldown_ms: times(cooldown),
        require_healthy_for_ms: times(require),
        switches_per_hour_max: u32::from(most % 4) + 1,
    };
    let targets = usize::from(targets % 4) + 1;
    let mut run = FailoverRun::new(policy, targets);
    for operation in operations.chunks_exact(3) {
        run.step(operation[0], operation[1], operation[2]);
    }
}

/// The machine, and what an onlooker remembers of it.
struct FailoverRun {
    policy: FailoverPolicy,
    failover: Failover,
    now_ms: u64,
    health: Vec<Option<(Health, u64)>>,
    switched_ms: Vec<u64>,
}

impl FailoverRun {
    fn new(policy: FailoverPolicy, targets: usize) -> Self {
        Self {
            policy,
            failover: Failover::new(policy, targets),
            now_ms: 0,
            health: vec![None; targets],
            switched_ms: Vec::new(),
        }
    }

    fn step(&mut self, what: u8, target: u8, time: u8) {
        self.now_ms += [0, 1, 999, 30_000, 299_999, 1_800_000, HOUR_MS - 1, HOUR_MS][usize::from(time % 8)];
        let target = usize::from(target) % self.health.len();
        let health = match what % 4 {
            0 => Health::Healthy,
            1 => Health::Unhealthy,
            _ => return self.poll(),
        };
        self.failover.handle_health(target, health, self.now_ms);
        if self.health[target].is_none_or(|(known, _)| known != health) {
            self.health[target] = Some((health, self.now_ms));
        }
    }

    fn poll(&mut self) {
        let due = self.failover.poll_deadline();
        let before = self.failover.active();
        let Some(switch) = self.failover.poll_switch(self.now_ms) else {
            assert_eq!(self.failover.active(), before);
            assert!(due.is_none_or(|due| due > self.now_ms), "what was due was done");
            self.check_hold();
            return;
        };
        assert!(due.is_some_and(|due| due <= self.now_ms), "nothing is done before it is due");
        assert_eq!((switch.from, switch.to), (before, self.failover.active()));
        assert_ne!(switch.from, switch.to);
        assert!(
            !matches!(self.health[switch.to], Some((Health::Unhealthy, _))),
            "never to an unhealthy target"
        );
        let last = self.switched_ms.last();
        assert!(
            last.is_none_or(|last| self.now_ms - last >= self.policy.cooldown_ms),
            "the cool-down is over"
        );
        self.switched_ms.push(self.now_ms);
        let within = |time: &&u64| self.now_ms - **time < HOUR_MS;
        let recent = self.switched_ms.iter().filter(within).count();
        assert!(recent <= self.policy.switches_per_hour_max as usize, "{recent} within an hour");
        match self.health[switch.from] {
            Some((Health::Unhealthy, since)) => assert!(self.now_ms - since >= self.policy.switch_after_ms),
            _ => {
                let Some((Health::Healthy, since)) = self.health[switch.to] else {
                    panic!("back to a target that is not known to be healthy");
                };
                assert!(switch.to < switch.from && self.now_ms - since >= self.policy.require_healthy_for_ms);
            }
        }
    }

    /// What is said of a machine that stays is true.
    fn check_hold(&self) {
        let unhealthy = |health: &Option<(Health, u64)>| matches!(health, Some((Health::Unhealthy, _)));
        let last = self.switched_ms.last().copied();
        match self.failover.hold(self.now_ms) {
            Hold::NoHealthyTarget => assert!(self.health.iter().all(unhealthy)),
            Hold::Cooldown => {
                assert!(last.is_some_and(|last| self.now_ms - last < self.policy.cooldown_ms));
            }
            Hold::SwitchesPerHour => {
                assert!(self.switched_ms.len() >= self.policy.switches_per_hour_max as usize);
            }
            Hold::Settled => assert!(!unhealthy(&self.health[self.failover.active()])),
            Hold::Waiting => {}
        }
    }
}

/// Routing and explaining say the same, twice.
fn check_flows(flows: &Flows, body: &[u8]) {
    let document = Document::new(body);
    let headers = Headers::Lines("x-a:1\nx-b:2\n");
    let subject =
        Subject { endpoint: "shop", content_type: "application/json; a=b", headers, document: &document };
    let routed = flows.route(&subject);
    assert!(flows.needs_json() || !document.is_parsed());
    assert_eq!(routed, flows.route(&subject));
    let explanation = flows.explain(&subject);
    for (flow, explained) in flows.iter().zip(&explanation.flows) {
        assert_eq!(explained.matched.unwrap_or(false), routed.is_matched(flow.index()));
        assert_eq!(explained.on_error.is_some(), routed.is_undecided(flow.index()));
    }
    assert_eq!(explanation.targets.is_empty(), routed.is_empty());
    assert!(!explanation.to_string().is_empty());
}

/// One of each leaf over every value there is.
fn fixed_flows() -> Flows {
    let text = r#"[
        {"name":"all","targets":["t"],"when":{"all":[{"jsonpath":"$..*","regex":"a+b"},{"header":"x-a","exists":true}]}},
        {"name":"any","targets":["t"],"on_error":"open","json_depth_max":3,
         "when":{"any":[{"jsonpath":"$..[?@.a == $.b]","exists":true},{"jsonpath":"$.a","exact":{"b":[1]}}]}},
        {"name":"not","targets":["t"],"when":{"not":{"jsonpath":"$[0]..a[1:]","exact":1}}},
        {"name":"short","targets":["t"],"body_bytes_max":16,"when":{"jsonpath":"$","exists":true}}
    ]"#;
    let raw: Vec<RawFlow> = serde_json::from_str(text).expect("written above");
    Flows::compile(&raw, Matching::All).expect("written above")
}

/// Kinds are what is told of values: they hold no text.
const _: () = assert!(size_of::<Kind>() <= 16);
