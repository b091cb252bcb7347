//! This shard's subscriptions.
