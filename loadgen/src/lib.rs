//! A load generator for MQTT brokers. See the README beside this package.
//!
//! The modules, lowest first; each names only modules above it.
//!
//! | module | owns |
//! | --- | --- |
//! | [`measure`] | what a run measures: the types between the engine and every output |
//! | [`process`] | what another process costs, from `/proc` |
//! | [`plan`] | what a run is to do, from flags or from the name of a scenario |
//! | [`engine`] | sockets, schedules, the protocol: from a plan to an outcome |
//! | [`report`] | what is left of a run: the summary and the files |
//! | [`screen`] | what is seen while a run goes |
//! | [`compare`] | several brokers under the same works |
//! | [`cli`] | the command line |

pub mod cli;
pub mod compare;
pub mod engine;
pub mod measure;
pub mod plan;
pub mod process;
pub mod report;
pub mod screen;
