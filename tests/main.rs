//! Integration tests: one binary, so that Burn links once.
#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod adapter_folders;
mod adapters;
mod answers;
mod bad_rows;
mod cards;
mod checking;
mod combining;
mod commands;
mod converting;
mod corpus;
mod devices;
mod docs;
mod ending;
mod estimate;
mod eval;
mod generating;
mod golden;
mod guard;
mod halves;
mod hostile;
mod init;
mod inspecting;
mod judging;
mod launch;
mod llama_adapter;
mod loopback;
mod merging;
mod model;
mod names;
mod offload;
mod packaging;
mod parallel;
mod recipes;
mod report;
mod resuming;
#[cfg(target_os = "linux")]
mod sandbox;
mod serving;
mod starts;
mod tokenizing;
mod tracking;
mod training;
mod vocabulary;
mod wrong;
