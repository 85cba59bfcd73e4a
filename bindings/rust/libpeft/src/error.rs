//! Status and error: what a call of the library says when it fails.
use std::ffi::CStr;
use std::fmt;

use libpeft_sys as ffi;

/// What kind of failure it was; the message says which file, tensor, key or value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// An argument that cannot be.
    Invalid,
    /// The allocator or the memory limit said no.
    NoMemory,
    /// The operating system said no.
    Io,
    /// A file is damaged or not what it claims to be.
    Format,
    /// A sound request or file that this version cannot serve.
    Unsupported,
    /// No such file, tensor, adapter, token or row.
    NotFound,
    /// The name is taken.
    Exists,
    /// Unknown option key, or a value out of its range.
    Key,
    /// Sizes that do not fit together, or a batch beyond the planned caps.
    Shape,
    /// A buffer is too small. The safe layer makes them large enough.
    Buffer,
    /// In use: a pinned adapter, or a call from a callback that may not make it.
    Busy,
    /// A canceller was used; the state is whole and can go on.
    Cancelled,
    /// A callback said to stop.
    Callback,
    /// NaN or infinity.
    Numeric,
    /// A file of a newer version than this library reads, or a library of another version than this crate.
    Version,
    /// A bug in libpeft.
    Internal,
    /// A status that this version of the crate does not know.
    Other(i32),
}

/// Each status that has a name here, with its number in C.
const NUMBERS: [(Status, i32); 16] = [
    (Status::Invalid, ffi::PEFT_E_INVALID),
    (Status::NoMemory, ffi::PEFT_E_NOMEM),
    (Status::Io, ffi::PEFT_E_IO),
    (Status::Format, ffi::PEFT_E_FORMAT),
    (Status::Unsupported, ffi::PEFT_E_UNSUPPORTED),
    (Status::NotFound, ffi::PEFT_E_NOT_FOUND),
    (Status::Exists, ffi::PEFT_E_EXISTS),
    (Status::Key, ffi::PEFT_E_KEY),
    (Status::Shape, ffi::PEFT_E_SHAPE),
    (Status::Buffer, ffi::PEFT_E_BUFFER),
    (Status::Busy, ffi::PEFT_E_BUSY),
    (Status::Cancelled, ffi::PEFT_E_CANCELLED),
    (Status::Callback, ffi::PEFT_E_CALLBACK),
    (Status::Numeric, ffi::PEFT_E_NUMERIC),
    (Status::Version, ffi::PEFT_E_VERSION),
    (Status::Internal, ffi::PEFT_E_INTERNAL),
];

impl Status {
    pub(crate) fn from_code(code: i32) -> Status {
        NUMBERS.iter().find(|(_, n)| *n == code).map_or(Status::Other(code), |(s, _)| *s)
    }

    /// The number that it has in C.
    pub fn code(self) -> i32 {
        match self {
            Status::Other(code) => code,
            known => NUMBERS.iter().find(|(s, _)| *s == known).map_or(ffi::PEFT_E_INTERNAL, |(_, n)| *n),
        }
    }

    /// Its name in C: `"PEFT_E_NOMEM"`; `"PEFT_E_?"` for an unknown one.
    pub fn name(self) -> &'static str {
        // SAFETY: never NULL, and static text.
        unsafe { CStr::from_ptr(ffi::peft_status_name(self.code())) }.to_str().unwrap_or("PEFT_E_?")
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A failure: its status, and one sentence that names the thing and what was expected.
#[derive(Clone, PartialEq, Eq)]
pub struct Error {
    status: Status,
    message: String,
}

/// What every call that can fail returns.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn new(status: Status, message: impl Into<String>) -> Error {
        Error { status, message: message.into() }
    }

    /// The library's last error on this thread, for a status that it has just returned.
    pub(crate) fn last(code: i32) -> Error {
        // SAFETY: never NULL; valid until this thread's next failing call, and copied here.
        let text = unsafe { CStr::from_ptr(ffi::peft_last_error()) };
        Error::new(Status::from_code(code), text.to_string_lossy())
    }

    /// The kind of failure.
    pub fn status(&self) -> Status {
        self.status
    }

    /// The sentence.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status, self.message)
    }
}

impl std::error::Error for Error {}
