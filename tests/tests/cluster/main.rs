//! The whole system as real processes. Every test ends with the books: all of them must balance, and nothing may stay reserved.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails its test")]

/// Each of these on each database server.
macro_rules! on_each_server {
    ($($name:ident),+ $(,)?) => {
        mod postgres {
            use super::Store;
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() -> anyhow::Result<()> {
                    super::$name(Store::Postgres).await
                }
            )+
        }

        mod mariadb {
            use super::Store;
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() -> anyhow::Result<()> {
                    super::$name(Store::Mysql).await
                }
            )+
        }
    };
}

/// Each of these on all three databases.
macro_rules! on_each_store {
    ($($name:ident),+ $(,)?) => {
        on_each_server!($($name),+);

        mod sqlite {
            use super::Store;
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() -> anyhow::Result<()> {
                    super::$name(Store::Sqlite).await
                }
            )+
        }
    };
}

mod bad_input;
mod bench;
mod command_line;
mod coordinator;
mod database_faults;
mod faults;
mod full_disk;
mod gateways;
mod growth;
mod operators;
mod orders;
mod overload;
mod participants;
mod processes;
mod reconcile;
mod scenarios;
mod stores;
mod wiped_log;

use tcc_cluster::{
    harness::ClusterConfig,
    stage::{self, Stage},
};

fn quick() -> ClusterConfig {
    stage::quick(env!("CARGO_BIN_EXE_tcc-cluster"))
}

async fn quick_stage() -> anyhow::Result<Stage> {
    Stage::start(quick()).await
}

/// A quick cluster with other settings of the coordinator.
fn quick_with(settings: serde_json::Value) -> ClusterConfig {
    let mut config = quick();
    if let (Some(all), serde_json::Value::Object(settings)) = (config.coordinator.as_object_mut(), settings) {
        all.extend(settings);
    }
    config
}
