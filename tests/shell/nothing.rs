//! Cargo wants a target; the sources of the dependency are what is wanted.
