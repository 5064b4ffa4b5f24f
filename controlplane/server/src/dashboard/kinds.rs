//! What there is to be said of a tenant, as forms: one table of kinds and their fields.

use crate::rest::Operation;

/// A kind of objects.
pub(super) struct Kind {
    /// As paths have it.
    pub(super) path: &'static str,
    pub(super) title: &'static str,
    /// One of them, in a sentence.
    pub(super) one: &'static str,
    pub(super) says: &'static str,
    /// Routes of the API.
    pub(super) list: &'static str,
    pub(super) item: &'static str,
    /// What somebody must be allowed to, who changes one.
    pub(super) change: Operation,
    pub(super) naming: Naming,
    pub(super) fields: &'static [Field],
    /// Label and pointer.
    pub(super) columns: &'static [(&'static str, &'static str)],
}

/// Where names come from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    Chosen,
    /// 32 hex digits that nobody can guess.
    Made,
}

/// A field of a form.
pub(super) struct Field {
    /// Into the object (RFC 6901).
    pub(super) pointer: &'static str,
    pub(super) label: &'static str,
    pub(super) hint: &'static str,
    pub(super) input: Input,
    pub(super) need: Need,
}

/// Whether a field that is empty is left out of the object.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    Required,
    Optional,
}

/// How a field is filled in.
#[derive(Clone, Copy)]
pub(super) enum Input {
    /// A line.
    Text,
    /// Some lines.
    Long,
    /// A list, one on each line.
    Lines,
    /// A value of JSON.
    Json,
    /// One of these: value and label.
    Choice(&'static [(&'static str, &'static str)]),
    /// Any of these.
    Checks(&'static [(&'static str, &'static str)]),
    /// The name of an object of a kind.
    One(&'static str),
    /// Names of objects of a kind.
    Many(&'static str),
    /// Yes or no.
    Switch,
}

const fn field(pointer: &'static str, label: &'static str, input: Input, hint: &'static str) -> Field {
    Field { pointer, label, hint, input, need: Need::Required }
}

const fn optional(pointer: &'static str, label: &'static str, input: Input, hint: &'static str) -> Field {
    Field { pointer, label, hint, input, need: Need::Optional }
}

const DESCRIPTION: Field = field("/description", "Description", Input::Long, "For people, up to 1024 bytes.");
const SETTINGS: Field = optional(
    "/settings",
    "Other settings",
    Input::Json,
    "JSON: other keys of its table in the node's configuration, such as {\"timeout_ms\": 5000}.",
);
const SCHEMES: &[(&str, &str)] = &[
    ("github", "GitHub"),
    ("standard-webhooks", "Standard Webhooks"),
    ("hmac", "HMAC in a header (setting hmac)"),
    ("none", "None (setting authorization or client_certificate)"),
];

/// All kinds, in the order of the menu.
pub(super) const KINDS: &[Kind] = &[
    Kind {
        path: "clusters",
        title: "Clusters",
        one: "cluster",
        says: "Members that one agent looks after: often a host.",
        list: "/v1/tenants/{tenant}/clusters",
        item: "/v1/tenants/{tenant}/clusters/{cluster}",
        change: Operation::Manage,
        naming: Naming::Chosen,
        fields: &[DESCRIPTION],
        columns: &[("Description", "/description")],
    },
    Kind {
        path: "members",
        title: "Members",
        one: "member",
        says: "Nodes of a cluster, and what else gets an identity there.",
        list: "/v1/tenants/{tenant}/members",
        item: "/v1/tenants/{tenant}/members/{name}",
        change: Operation::Manage,
        naming: Naming::Chosen,
        fields: &[
            field("/cluster", "Cluster", Input::One("clusters"), "Whose agent looks after it."),
            field(
                "/roles",
                "Roles",
                Input::Checks(&[
                    ("ingester", "Ingester: takes webhooks in"),
                    ("egress", "Egress: delivers them"),
                ]),
                "Without a role it gets an identity and nothing to do.",
            ),
            optional("/link/listen", "Link: listens at", Input::Text, "host:port, such as 0.0.0.0:7443."),
            optional("/link/address", "Link: others dial", Input::Text, "host:port. Who has none dials."),
            DESCRIPTION,
            SETTINGS,
        ],
        columns: &[("Cluster", "/cluster"), ("Roles", "/roles"), ("Description", "/description")],
    },
    Kind {
        path: "endpoints",
        title: "Endpoints",
        one: "endpoint",
        says: "Where sources send webhooks: https://HOST/hooks/NAME.",
        list: "/v1/tenants/{tenant}/endpoints",
        item: "/v1/tenants/{tenant}/endpoints/{name}",
        change: Operation::Manage,
        naming: Naming::Made,
        fields: &[
            field("/cluster", "Cluster", Input::One("clusters"), "Whose ingesters take them."),
            optional(
                "/members",
                "Members",
                Input::Many("members"),
                "Which of its ingesters; all without any.",
            ),
            field("/scheme", "Signature scheme", Input::Choice(SCHEMES), "How sources sign."),
            optional(
                "/secrets",
                "Secrets",
                Input::Lines,
                "Where lockd has them: NAMESPACE/NAME/KEY, one on each line.",
            ),
            DESCRIPTION,
            SETTINGS,
        ],
        columns: &[("Cluster", "/cluster"), ("Scheme", "/scheme"), ("Description", "/description")],
    },
    Kind {
        path: "destinations",
        title: "Destinations",
        one: "destination",
        says: "Where an egress delivers. A node's configuration calls them targets.",
        list: "/v1/tenants/{tenant}/destinations",
        item: "/v1/tenants/{tenant}/destinations/{name}",
        change: Operation::Draft,
        naming: Naming::Chosen,
        fields: &[
            field("/cluster", "Cluster", Input::One("clusters"), "Whose egress delivers."),
            optional(
                "/member",
                "Member",
                Input::One("members"),
                "Which egress; not needed where there is one.",
            ),
            field("/url", "URL", Input::Text, "https://host[:port]/path"),
            field("/key_id", "Key id", Input::Text, "Names the key in Zen-Signature, such as billing-1."),
            field("/secret", "Secret", Input::Text, "Where lockd has it: NAMESPACE/NAME/KEY."),
            optional(
                "/previous_secret",
                "Previous secret",
                Input::Text,
                "Signs too, while the target changes over.",
            ),
            optional(
                "/spiffe_ids",
                "SPIFFE ids",
                Input::Lines,
                "Patterns of who the target may be, one on each line.",
            ),
            DESCRIPTION,
            SETTINGS,
        ],
        columns: &[("Cluster", "/cluster"), ("URL", "/url"), ("Description", "/description")],
    },
    Kind {
        path: "delivery-flows",
        title: "Delivery flows",
        one: "delivery flow",
        says: "Which events of an endpoint go to which destinations.",
        list: "/v1/tenants/{tenant}/delivery-flows",
        item: "/v1/tenants/{tenant}/delivery-flows/{name}",
        change: Operation::Draft,
        naming: Naming::Chosen,
        fields: &[
            field("/endpoint", "Endpoint", Input::One("endpoints"), "Whose events."),
            field(
                "/destinations",
                "Destinations",
                Input::Many("destinations"),
                "Each event goes to all of them.",
            ),
            optional("/when", "Condition", Input::Json, "JSON: which events; all without it."),
            optional(
                "/outputs",
                "Outputs",
                Input::Json,
                "JSON: destinations with standbys or a body of their own.",
            ),
            DESCRIPTION,
            SETTINGS,
        ],
        columns: &[
            ("Endpoint", "/endpoint"),
            ("Destinations", "/destinations"),
            ("Description", "/description"),
        ],
    },
    Kind {
        path: "policies",
        title: "Policies",
        one: "policy",
        says: "Who may be at the other end of a connection. Deny beats allow.",
        list: "/v1/tenants/{tenant}/policies",
        item: "/v1/tenants/{tenant}/policies/{name}",
        change: Operation::Manage,
        naming: Naming::Chosen,
        fields: &[
            optional(
                "/clusters",
                "Clusters",
                Input::Many("clusters"),
                "Whose members go by it; all without any.",
            ),
            field(
                "/scope",
                "Scope",
                Input::Choice(&[
                    ("links", "Links, at both ends"),
                    ("destinations", "What egresses deliver to"),
                ]),
                "Which connections.",
            ),
            field("/allow", "Allow", Input::Lines, "SPIFFE patterns, one on each line."),
            field("/deny", "Deny", Input::Lines, "SPIFFE patterns, one on each line."),
            field("/dry_run", "Dry run", Input::Switch, "Only say what it would do."),
            DESCRIPTION,
        ],
        columns: &[("Scope", "/scope"), ("Clusters", "/clusters"), ("Description", "/description")],
    },
    Kind {
        path: "credentials",
        title: "Credentials",
        one: "credential",
        says: "Secrets that only the lockd of a cluster can open: zen-lockd seal makes them.",
        list: "/v1/tenants/{tenant}/credentials",
        item: "/v1/tenants/{tenant}/credentials/{name}",
        change: Operation::Manage,
        naming: Naming::Chosen,
        fields: &[
            field("/clusters", "Clusters", Input::Many("clusters"), "To whose lockd it is sealed."),
            field("/place", "Place", Input::Text, "What lockd calls it: NAMESPACE/NAME/KEY."),
            field(
                "/ciphertext",
                "Ciphertext",
                Input::Long,
                "Base64 of an age file; never the secret itself.",
            ),
            DESCRIPTION,
        ],
        columns: &[("Place", "/place"), ("Clusters", "/clusters"), ("Description", "/description")],
    },
];

/// The kind of a path.
pub(super) fn kind(path: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.path == path)
}
