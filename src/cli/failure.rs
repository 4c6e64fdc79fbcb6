//! How a command ends when it does not end well.

use std::fmt;

/// A message for people, and an exit code for scripts (sysexits(3)).
#[derive(Debug)]
pub struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// The command was used wrongly.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self { code: 64, message: message.into() }
    }

    /// The input data is wrong, or a server refused it.
    pub(super) fn data(message: impl Into<String>) -> Self {
        Self { code: 65, message: message.into() }
    }

    /// A file cannot be read.
    pub(super) fn no_input(message: impl Into<String>) -> Self {
        Self { code: 66, message: message.into() }
    }

    /// A server cannot be reached, or a port or model cannot be had.
    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self { code: 69, message: message.into() }
    }

    /// The operating system refused something.
    pub(super) fn os(message: impl Into<String>) -> Self {
        Self { code: 71, message: message.into() }
    }

    /// A file cannot be written.
    pub(super) fn io(message: impl Into<String>) -> Self {
        Self { code: 74, message: message.into() }
    }

    /// Something is in use that may be free later.
    pub(super) fn temporary(message: impl Into<String>) -> Self {
        Self { code: 75, message: message.into() }
    }

    /// A server refused the key.
    pub(super) fn no_permission(message: impl Into<String>) -> Self {
        Self { code: 77, message: message.into() }
    }

    /// The configuration is wrong.
    pub(super) fn config(message: impl Into<String>) -> Self {
        Self { code: 78, message: message.into() }
    }

    pub fn code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
