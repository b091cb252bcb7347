//! A load generator for MQTT brokers. See the README beside this package.

//compare
pub mod measure;
pub mod process;
pub mod report;
//screen
