//! What is logged goes through here: to `tracing` where the feature is on, nowhere where it is off.

#[cfg(feature = "tracing")]
pub(crate) use tracing::{debug, debug_span, error, info, info_span, warn};

#[cfg(not(feature = "tracing"))]
pub(crate) use self::silent::{
    event as debug, event as error, event as info, event as warn, span as debug_span, span as info_span,
};

#[cfg(not(feature = "tracing"))]
pub(crate) mod silent {
    pub(crate) struct Span;

    impl Span {
        pub(crate) fn in_scope<T>(&self, inside: impl FnOnce() -> T) -> T {
            inside()
        }
    }

    macro_rules! event {
        ($($fields:tt)*) => {{}};
    }

    macro_rules! span {
        ($($fields:tt)*) => {
            $crate::log::silent::Span
        };
    }

    pub(crate) use {event, span};
}
