//! How an attempt ended, and what follows from it.
//!
//! Outcomes enter; one exhaustive function sorts them into verdicts (Standard Webhooks, RFC 9110 section 15).

use super::status::StatusSet;

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A whole answer came.
    Answered {
        /// The status code.
        status: u16,
        /// Delay that the target asked for, as [`super::parse_retry_after`] reads it.
        retry_after_ms: Option<u64>,
    },
    /// No connection was made.
    ConnectFailed(ConnectFailure),
    /// The TLS handshake failed, or the peer's identity was not the expected one.
    TlsFailed,
    /// No whole answer within the attempt's time.
    TimedOut,
    /// The connection ended early, or what came was not HTTP/1.1.
    BrokenAnswer,
    /// Our own policy forbids the connection.
    Refused,
    /// The target is no longer configured.
    TargetRemoved,
    /// Our own journal does not give the event back: its record is damaged, or the disk does not read.
    Unreadable,
    /// The target's body could not be made of the event's.
    TransformFailed,
    /// Its time was over before the attempt.
    DeadlineOver,
}

/// Why no connection was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectFailure {
    /// The name has no address.
    NameNotFound,
    /// The peer refused.
    Refused,
    /// No route to the peer.
    Unreachable,
    /// The name has addresses, and our policy forbids them all.
    Forbidden,
    /// No answer in time.
    TimedOut,
    /// The peer reset the connection while it was being made.
    Reset,
    /// There is no unix socket at the path.
    NoSocket,
    /// This user may not connect to it.
    NotPermitted,
    /// Another user listens than the one that is configured.
    WrongPeer,
    /// There was no access token for it any more.
    NoToken,
    /// We had no socket, descriptor or memory for it.
    NoResources,
    /// Anything else.
    Other,
}

/// What becomes of a delivery after an outcome.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The target has it.
    Delivered,
    /// It waits for another attempt.
    Retry {
        /// Attempts made so far.
        attempt: u32,
        /// Not before this time, ms.
        due_ms: u64,
    },
    /// It is a dead letter; the queue no longer holds it.
    Dead {
        /// Outcome of its last attempt.
        reason: DeadReason,
    },
    /// The target is disabled; the delivery is kept, and goes first after resume.
    Disabled {
        /// Attempts made so far.
        attempt: u32,
        /// Due at once when the target is resumed, ms.
        due_ms: u64,
    },
}

/// Why a delivery became a dead letter: what its last attempt met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadReason {
    /// A redirect, which is never followed.
    Redirected,
    /// 4xx.
    ClientError,
    /// 5xx.
    ServerError,
    /// A status that no final answer may have.
    StrangeStatus,
    /// No connection.
    ConnectFailed,
    /// No TLS session, or the wrong peer.
    TlsFailed,
    /// No answer in time.
    TimedOut,
    /// Not an HTTP/1.1 answer.
    BrokenAnswer,
    /// The target did not take it before its deadline.
    DeadlineOver,
    /// Our own policy.
    Refused,
    /// The target is no longer configured.
    TargetRemoved,
    /// The target's queue had no room for it.
    QueueFull,
    /// Our own journal did not give the event back.
    Unreadable,
    /// The target's body could not be made of the event's.
    TransformFailed,
    /// A header rule of its endpoint holds the event back; no attempt was made.
    Quarantined,
}

/// On whose side a delivery failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// What the target did or did not do.
    Destination,
    /// What happened on our side.
    Pipeline,
}

impl FaultKind {
    /// Name in answers to operators.
    pub fn label(self) -> &'static str {
        match self {
            Self::Destination => "destination",
            Self::Pipeline => "pipeline",
        }
    }
}

/// What the queue has to do about an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Delivered,
    /// Again; dead for the reason when the schedule is over.
    Retry {
        reason: DeadReason,
    },
    /// The same, and the target is asked too much.
    Throttle {
        retry_after_ms: Option<u64>,
        reason: DeadReason,
    },
    Disable,
    Dead(DeadReason),
}

impl Outcome {
    /// Status of the answer; 0 if none came.
    pub fn status(&self) -> u16 {
        match *self {
            Self::Answered { status, .. } => status,
            _ => 0,
        }
    }

    /// Name in metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::ConnectFailed(failure) => failure.label(),
            _ => match self.verdict(&StatusSet::EMPTY) {
                Verdict::Delivered => "delivered",
                Verdict::Disable => "gone",
                Verdict::Retry { reason } | Verdict::Throttle { reason, .. } | Verdict::Dead(reason) => {
                    reason.label()
                }
            },
        }
    }

    /// What follows, where the statuses of the set are permanent.
    pub(super) fn verdict(&self, permanent: &StatusSet) -> Verdict {
        let reason = match *self {
            Self::Answered { status, retry_after_ms } => {
                return status_verdict(status, retry_after_ms, permanent);
            }
            Self::TargetRemoved => return Verdict::Dead(DeadReason::TargetRemoved),
            // The same event fails the same way each time.
            Self::TransformFailed => return Verdict::Dead(DeadReason::TransformFailed),
            Self::DeadlineOver => return Verdict::Dead(DeadReason::DeadlineOver),
            Self::ConnectFailed(_) => DeadReason::ConnectFailed,
            Self::TlsFailed => DeadReason::TlsFailed,
            Self::TimedOut => DeadReason::TimedOut,
            Self::BrokenAnswer => DeadReason::BrokenAnswer,
            // Policies are corrected while events wait; each attempt asks the policy again.
            Self::Refused => DeadReason::Refused,
            // What one read did not give the next may: the disk, or an operator who mends it.
            Self::Unreadable => DeadReason::Unreadable,
        };
        Verdict::Retry { reason }
    }
}

impl Outcome {
    /// What it says of the target: that it does its work, that it does not, or nothing.
    pub fn target_works(&self) -> Option<bool> {
        match *self {
            Self::Answered { status, .. } => Some(!matches!(status, 410 | 500..=599)),
            Self::ConnectFailed(ConnectFailure::NoResources)
            | Self::Refused
            | Self::TargetRemoved
            | Self::Unreadable
            | Self::TransformFailed
            | Self::DeadlineOver => None,
            Self::ConnectFailed(_) | Self::TlsFailed | Self::TimedOut | Self::BrokenAnswer => Some(false),
        }
    }
}

impl ConnectFailure {
    /// Name in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::NameNotFound => "connect_name_not_found",
            Self::Refused => "connect_refused",
            Self::Unreachable => "connect_unreachable",
            Self::Forbidden => "connect_forbidden",
            Self::TimedOut => "connect_timed_out",
            Self::Reset => "connect_reset",
            Self::NoSocket => "connect_no_socket",
            Self::NotPermitted => "connect_not_permitted",
            Self::WrongPeer => "connect_wrong_peer",
            Self::NoToken => "connect_no_token",
            Self::NoResources => "connect_no_resources",
            Self::Other => "connect_failed",
        }
    }
}

/// The first code of a fault on our side.
const PIPELINE_CODE_MIN: u8 = 64;

impl DeadReason {
    /// Name in metrics and receipts.
    pub fn label(self) -> &'static str {
        match self {
            Self::Redirected => "redirected",
            Self::ClientError => "client_error",
            Self::ServerError => "server_error",
            Self::StrangeStatus => "strange_status",
            Self::ConnectFailed => "connect_failed",
            Self::TlsFailed => "tls_failed",
            Self::TimedOut => "timed_out",
            Self::BrokenAnswer => "broken_answer",
            Self::DeadlineOver => "deadline_over",
            Self::Refused => "refused",
            Self::TargetRemoved => "target_removed",
            Self::QueueFull => "queue_full",
            Self::Unreadable => "unreadable",
            Self::TransformFailed => "transform_failed",
            Self::Quarantined => "quarantined",
        }
    }

    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Redirected,
        Self::ClientError,
        Self::ServerError,
        Self::StrangeStatus,
        Self::ConnectFailed,
        Self::TlsFailed,
        Self::TimedOut,
        Self::BrokenAnswer,
        Self::DeadlineOver,
        Self::Refused,
        Self::TargetRemoved,
        Self::QueueFull,
        Self::Unreadable,
        Self::TransformFailed,
        Self::Quarantined,
    ];

    /// Its number in journals, for good: below 64 the target's faults, from 64 on ours; never 0.
    pub fn code(self) -> u8 {
        match self {
            Self::Redirected => 1,
            Self::ClientError => 2,
            Self::ServerError => 3,
            Self::StrangeStatus => 4,
            Self::ConnectFailed => 5,
            Self::TlsFailed => 6,
            Self::TimedOut => 7,
            Self::BrokenAnswer => 8,
            Self::DeadlineOver => 9,
            Self::Refused => 64,
            Self::TargetRemoved => 65,
            Self::QueueFull => 66,
            Self::Unreadable => 67,
            Self::TransformFailed => 68,
            Self::Quarantined => 69,
        }
    }

    /// Back from [`DeadReason::code`].
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }

    /// Back from [`DeadReason::label`].
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.label() == label)
    }

    /// On whose side it failed.
    pub fn kind(self) -> FaultKind {
        if self.code() < PIPELINE_CODE_MIN { FaultKind::Destination } else { FaultKind::Pipeline }
    }
}

fn status_verdict(status: u16, retry_after_ms: Option<u64>, permanent: &StatusSet) -> Verdict {
    let reason = match status {
        200..=299 => return Verdict::Delivered,
        410 => return Verdict::Disable,
        300..=399 => DeadReason::Redirected,
        400..=499 => DeadReason::ClientError,
        500..=599 => DeadReason::ServerError,
        _ => DeadReason::StrangeStatus,
    };
    match status {
        429 | 503 => Verdict::Throttle { retry_after_ms, reason },
        _ if permanent.contains(status) => Verdict::Dead(reason),
        _ => Verdict::Retry { reason },
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn answered(status: u16) -> Outcome {
        Outcome::Answered { status, retry_after_ms: Some(9_000) }
    }

    fn retry(reason: DeadReason) -> Verdict {
        Verdict::Retry { reason }
    }

    fn throttle(reason: DeadReason) -> Verdict {
        Verdict::Throttle { retry_after_ms: Some(9_000), reason }
    }

    #[test]
    fn outcomes_and_their_verdicts() {
        use DeadReason as R;
        let table = [
            (answered(200), Verdict::Delivered, "delivered"),
            (answered(202), Verdict::Delivered, "delivered"),
            (answered(299), Verdict::Delivered, "delivered"),
            (answered(301), retry(R::Redirected), "redirected"),
            (answered(304), retry(R::Redirected), "redirected"),
            (answered(307), retry(R::Redirected), "redirected"),
            (answered(400), retry(R::ClientError), "client_error"),
            (answered(409), retry(R::ClientError), "client_error"),
            (answered(410), Verdict::Disable, "gone"),
            (answered(411), retry(R::ClientError), "client_error"),
            (answered(413), Verdict::Dead(R::ClientError), "client_error"),
            (answered(422), Verdict::Dead(R::ClientError), "client_error"),
            (answered(429), throttle(R::ClientError), "client_error"),
            (answered(500), retry(R::ServerError), "server_error"),
            (answered(503), throttle(R::ServerError), "server_error"),
            (answered(504), retry(R::ServerError), "server_error"),
            (answered(0), retry(R::StrangeStatus), "strange_status"),
            (answered(101), retry(R::StrangeStatus), "strange_status"),
            (answered(199), retry(R::StrangeStatus), "strange_status"),
            (answered(600), retry(R::StrangeStatus), "strange_status"),
            (Outcome::ConnectFailed(ConnectFailure::Reset), retry(R::ConnectFailed), "connect_reset"),
            (Outcome::TlsFailed, retry(R::TlsFailed), "tls_failed"),
            (Outcome::TimedOut, retry(R::TimedOut), "timed_out"),
            (Outcome::BrokenAnswer, retry(R::BrokenAnswer), "broken_answer"),
            (Outcome::Refused, retry(R::Refused), "refused"),
            (Outcome::TargetRemoved, Verdict::Dead(R::TargetRemoved), "target_removed"),
            (Outcome::Unreadable, retry(R::Unreadable), "unreadable"),
            (Outcome::TransformFailed, Verdict::Dead(R::TransformFailed), "transform_failed"),
            (Outcome::DeadlineOver, Verdict::Dead(R::DeadlineOver), "deadline_over"),
        ];
        for (outcome, verdict, label) in table {
            assert_eq!(
                (outcome.verdict(&StatusSet::default()), outcome.label()),
                (verdict, label),
                "{outcome:?}"
            );
        }
    }

    #[test]
    fn what_is_our_own_doing_says_nothing_of_the_target() {
        let failed = |failure| Outcome::ConnectFailed(failure);
        for (outcome, expected) in [
            (answered(200), Some(true)),
            (answered(404), Some(true)),
            (answered(429), Some(true)),
            (answered(410), Some(false)),
            (answered(500), Some(false)),
            (answered(503), Some(false)),
            (failed(ConnectFailure::Refused), Some(false)),
            (failed(ConnectFailure::NoResources), None),
            (Outcome::TlsFailed, Some(false)),
            (Outcome::TimedOut, Some(false)),
            (Outcome::BrokenAnswer, Some(false)),
            (Outcome::Refused, None),
            (Outcome::TargetRemoved, None),
            (Outcome::Unreadable, None),
            (Outcome::TransformFailed, None),
            (Outcome::DeadlineOver, None),
        ] {
            assert_eq!(outcome.target_works(), expected, "{outcome:?}");
        }
    }

    #[test]
    fn reasons_have_stable_codes_and_sides() {
        let ours: Vec<&str> = DeadReason::ALL
            .into_iter()
            .filter(|reason| reason.kind() == FaultKind::Pipeline)
            .map(DeadReason::label)
            .collect();
        assert_eq!(
            ours,
            ["refused", "target_removed", "queue_full", "unreadable", "transform_failed", "quarantined"]
        );
        for reason in DeadReason::ALL {
            assert_eq!(DeadReason::from_code(reason.code()), Some(reason));
            assert_eq!(DeadReason::from_label(reason.label()), Some(reason));
        }
        assert_eq!((DeadReason::from_code(0), DeadReason::from_label("no")), (None, None));
    }

    #[test]
    fn what_is_permanent_is_a_matter_of_configuration() {
        let mut permanent = StatusSet::EMPTY;
        assert_eq!(answered(422).verdict(&permanent), retry(DeadReason::ClientError));
        for class in ["3xx", "4xx", "5xx"] {
            permanent.insert(class).unwrap();
        }
        for (status, verdict) in [
            (302, Verdict::Dead(DeadReason::Redirected)),
            (404, Verdict::Dead(DeadReason::ClientError)),
            (500, Verdict::Dead(DeadReason::ServerError)),
            (204, Verdict::Delivered),
            (410, Verdict::Disable),
            (429, throttle(DeadReason::ClientError)),
            (503, throttle(DeadReason::ServerError)),
        ] {
            assert_eq!(answered(status).verdict(&permanent), verdict, "{status}");
        }
    }
}
