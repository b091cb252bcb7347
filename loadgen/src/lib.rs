//! A load generator for MQTT brokers. See the README beside this package.

pub mod compare;
pub mod measure;
pub mod process;
pub mod report;
//screen
