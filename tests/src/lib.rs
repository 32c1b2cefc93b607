//! The HTTP suite lives in `tests/`; this library is empty.
