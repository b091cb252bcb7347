//! The program `shardmq-loadgen`.

fn main() {}
