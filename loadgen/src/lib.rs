//! A load generator for MQTT brokers. See the README beside this package.

pub mod measure;
