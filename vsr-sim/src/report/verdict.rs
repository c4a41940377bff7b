//! How a run ended.

use crate::check::Violation;

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every property held, and every request was answered.
    Pass,
    /// A property was broken.
    Safety(Violation),
    /// The healed core did not serve, though it could.
    Liveness(String),
    /// Something panicked.
    Crash(String),
    /// The core is rightly stuck: it holds no intact copy of something that may be committed.
    Unrecoverable(String),
}

impl Verdict {
    /// One word for programs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Safety(_) => "safety",
            Verdict::Liveness(_) => "liveness",
            Verdict::Crash(_) => "crash",
            Verdict::Unrecoverable(_) => "unrecoverable",
        }
    }

    /// What was broken, without the particulars: two failures of one class are the same bug, as far as anybody can tell.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Verdict::Safety(violation) => violation.checker,
            verdict => verdict.name(),
        }
    }

    /// Whether something is wrong.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        !matches!(self, Verdict::Pass | Verdict::Unrecoverable(_))
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Verdict::Pass => f.write_str("every property held, every request was answered"),
            Verdict::Safety(violation) => violation.fmt(f),
            Verdict::Liveness(why) | Verdict::Unrecoverable(why) => f.write_str(why),
            Verdict::Crash(panic) => write!(f, "a panic: {panic}"),
        }
    }
}
