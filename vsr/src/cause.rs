//! What another library said, kept whole in an error.

use std::error::Error;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// The cause of an error: an error of another library, or words where there is none.
///
/// An error that has a cause shows the cause's words in its own, so that an operator reads one line; a program finds the cause itself with
/// [`Error::source`], and can ask what it was: `error.source().and_then(|cause| cause.downcast_ref::<std::io::Error>())`.
///
/// It is cloned with the error, and compared by its words.
#[derive(Clone)]
pub struct Cause(Arc<dyn Error + Send + Sync>);

impl Cause {
    /// A cause made of an error, or of words.
    #[must_use]
    pub fn new(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Cause {
        let cause: Box<dyn Error + Send + Sync> = cause.into();
        Cause(Arc::from(cause))
    }
}

/// Not an error itself, so that [`Error::source`] gives what is in it.
impl Deref for Cause {
    type Target = dyn Error + Send + Sync;

    fn deref(&self) -> &(dyn Error + Send + Sync + 'static) {
        self.0.as_ref()
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl PartialEq for Cause {
    fn eq(&self, other: &Cause) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.to_string() == other.to_string()
    }
}

impl Eq for Cause {}

#[cfg(test)]
mod tests {
    use std::io::{self, ErrorKind};

    use super::*;
    use crate::codec::CodecError;
    use crate::traits::network::NetworkError;
    use crate::traits::storage::StorageError;
    use crate::{RestoreError, SubmitError};

    /// One line has the words of all, and the cause itself is found behind it, also in a clone.
    #[test]
    fn an_error_shows_its_cause_and_gives_it() {
        let failed = || io::Error::new(ErrorKind::PermissionDenied, "no such luck");
        let storage = StorageError::io("reading the log", failed());
        let errors: [&dyn Error; 4] =
            [&storage, &storage.clone(), &NetworkError::new(failed()), &RestoreError::from(failed())];
        for error in errors {
            assert!(error.to_string().contains("no such luck"), "{error}");
            let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
            assert_eq!(cause.map(io::Error::kind), Some(ErrorKind::PermissionDenied), "{error}");
        }
        assert_eq!(storage, StorageError::io("reading the log", "no such luck"), "compared by its words");
        assert_ne!(storage, StorageError::io("reading the log", "other words"));
        let codec = SubmitError::Encode(CodecError::TooDeep);
        let cause = codec.source().and_then(|cause| cause.downcast_ref::<CodecError>());
        assert_eq!(cause, Some(&CodecError::TooDeep));
    }
}
