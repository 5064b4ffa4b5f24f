//! What labs consist of: their egresses and targets, endpoints and flows.

/// Kinds of events, as `x-github-event` says, that go elsewhere than the load's.
pub(crate) const TOUR_FAN_OUT: &str = "demo-fan-out";
pub(crate) const TOUR_FLAKY: &str = "demo-flaky";

/// The targets of [`Shape::TWENTY`] that may misbehave, each at an address of its own.
pub(crate) const BAD_TARGETS: [&str; 3] = ["dead", "slow", "lying"];
const TWENTY_TARGETS: [&str; 20] = [
    "dead", "slow", "lying", "t04", "t05", "t06", "t07", "t08", "t09", "t10", "t11", "t12", "t13", "t14",
    "t15", "t16", "t17", "t18", "t19", "t20",
];
const TEN_TARGETS: [&str; 10] = ["dead", "t02", "t03", "t04", "t05", "t06", "t07", "t08", "t09", "t10"];
/// The target of [`Shape::REPLAY`] that refuses what becomes dead letters.
pub(crate) const DARK_TARGET: &str = "dark";
/// What [`Shape::COSTS`] has an endpoint for, with how many deliveries an event comes to.
pub(crate) const COSTS: [(&str, u32); 4] =
    [("plain", 1), ("one condition", 1), ("one transform", 1), ("fan-out of three", 3)];

/// Who opens the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// The egress, from behind its firewall.
    EgressDials,
    /// The ingester.
    IngesterDials,
}

/// An egress of a shape.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EgressShape {
    pub(super) name: &'static str,
    pub(super) direction: Direction,
    pub(super) targets: &'static [&'static str],
}

/// What a lab consists of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(super) egresses: &'static [EgressShape],
    pub(super) endpoints: usize,
    pub(super) in_flight_max: u32,
    pub(super) public_port: Option<u16>,
    pub(super) journal: JournalShape,
    /// Further flows of the first GitHub endpoint, each for one kind of event.
    pub(super) flows: &'static [FlowShape],
    /// Flow of each endpoint, in turn; without any, each endpoint's events go to a target of its own.
    pub(super) routes: &'static [RouteShape],
    /// Further lines of each egress, behind its targets.
    pub(super) outputs: &'static str,
}

/// A GitHub endpoint's only flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct RouteShape {
    pub(super) targets: &'static [&'static str],
    /// Further lines of the flow.
    pub(super) flow: &'static str,
}

/// A flow of its own for one kind of event.
#[derive(Clone, Copy, Debug)]
pub(super) struct FlowShape {
    /// The value of `x-github-event`.
    pub(super) kind: &'static str,
    pub(super) egress: &'static str,
    pub(super) targets: &'static [&'static str],
}

/// Sizes of a shape's journals.
#[derive(Clone, Copy, Debug)]
pub(super) struct JournalShape {
    pub(super) segment_bytes: u64,
    pub(super) bytes_max: u64,
}

impl JournalShape {
    const DEFAULT: Self = Self { segment_bytes: 64 << 20, bytes_max: 4 << 30 };
    /// The smallest segments, so that one is prepared, filled or recycled at almost any moment.
    const SMALL: Self = Self { segment_bytes: 4 << 20, bytes_max: 128 << 20 };
}

impl Shape {
    /// One of each, and an endpoint for each scheme.
    const SMALLEST: Self = Self {
        egresses: &[EgressShape { name: "inside", direction: Direction::EgressDials, targets: &["billing"] }],
        endpoints: 3,
        in_flight_max: 32,
        public_port: None,
        journal: JournalShape::DEFAULT,
        flows: &[],
        routes: &[],
        outputs: "",
    };

    /// The smallest, with targets for what the demo shows beside it.
    pub(crate) const DEMO: Self = Self {
        egresses: &[EgressShape {
            name: "inside",
            direction: Direction::EgressDials,
            targets: &["billing", "audit", "archive", "flaky"],
        }],
        public_port: Some(8443),
        flows: &[
            FlowShape { kind: TOUR_FAN_OUT, egress: "inside", targets: &["audit", "archive"] },
            FlowShape { kind: TOUR_FLAKY, egress: "inside", targets: &["flaky"] },
        ],
        ..Self::SMALLEST
    };

    /// Sixteen endpoints, four targets, both directions of dialling.
    pub(crate) const CRASH: Self = Self {
        egresses: &[
            EgressShape {
                name: "inside",
                direction: Direction::EgressDials,
                targets: &["billing", "builds"],
            },
            EgressShape {
                name: "branch",
                direction: Direction::IngesterDials,
                targets: &["alerts", "archive"],
            },
        ],
        endpoints: 16,
        ..Self::SMALLEST
    };

    /// As the crash test, on small drives.
    pub(crate) const POWER: Self = Self { journal: JournalShape::SMALL, ..Self::CRASH };

    /// One of each; the egress dials, so that the ingester may be behind forwarded ports.
    pub(crate) const POWER_GUEST: Self = Self { journal: JournalShape::SMALL, ..Self::SMALLEST };

    /// The smallest, with more deliveries on the way.
    pub(crate) const BENCH: Self = Self { in_flight_max: 256, ..Self::SMALLEST };

    /// Twenty endpoints, each with a target of its own; [`BAD_TARGETS`] may misbehave.
    pub(crate) const TWENTY: Self = Self {
        egresses: &[EgressShape {
            name: "inside",
            direction: Direction::EgressDials,
            targets: &TWENTY_TARGETS,
        }],
        endpoints: TWENTY_TARGETS.len(),
        ..Self::SMALLEST
    };

    /// Ten endpoints, each with a target of its own; the first may die.
    pub(crate) const TEN: Self = Self {
        egresses: &[EgressShape { name: "inside", direction: Direction::EgressDials, targets: &TEN_TARGETS }],
        endpoints: TEN_TARGETS.len(),
        ..Self::SMALLEST
    };

    /// Live traffic, and a target whose dead letters are replayed beside it.
    pub(crate) const REPLAY: Self = Self {
        egresses: &[EgressShape {
            name: "inside",
            direction: Direction::EgressDials,
            targets: &["live", DARK_TARGET],
        }],
        endpoints: 2,
        routes: &[
            RouteShape { targets: &["live"], flow: "" },
            RouteShape { targets: &[DARK_TARGET], flow: "" },
        ],
        ..Self::SMALLEST
    };

    /// An endpoint for each of [`COSTS`], in that order.
    pub(crate) const COSTS: Self = Self {
        egresses: &[EgressShape {
            name: "inside",
            direction: Direction::EgressDials,
            targets: &["one", "two", "three", "four"],
        }],
        endpoints: COSTS.len(),
        in_flight_max: 256,
        routes: &[
            RouteShape { targets: &["one"], flow: "" },
            RouteShape {
                targets: &["one"],
                flow: "when = { not = { jsonpath = \"$.sender.login\", exact = \"nobody\" } }",
            },
            RouteShape { targets: &["picked"], flow: "" },
            RouteShape { targets: &["one", "two", "three"], flow: "" },
        ],
        outputs: "[[egress.outputs]]\nname = \"picked\"\nprimary = \"four\"\n[egress.outputs.transform]\n\
                  fields = [{ direct = \"lab_event\" }, { direct = \"sender.login\", to = \"by\", on_missing = \"omit\" }]",
        ..Self::SMALLEST
    };
}
