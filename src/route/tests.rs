//! The routing against a naive broker.
