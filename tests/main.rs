//! Integration tests: one binary, so that Burn links once.
