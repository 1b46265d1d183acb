//! The processes themselves: who may share a database, who outlives whom, and what health says.

use std::{process::Stdio, time::Duration};

use tcc_cluster::harness::{Exited, Role};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::Command,
    time::timeout,
};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use super::quick_stage;

#[tokio::test(flavor = "multi_thread")]
async fn a_second_gateway_on_the_same_log_ends_with_a_clear_error() -> anyhow::Result<()> {
    let stage = quick_stage().await?;
    let error = stage.start_second_gateway().await.expect_err("it started");
    let exited = error.downcast_ref::<Exited>().unwrap_or_else(|| panic!("{error:#}"));
    assert!(!exited.status.success());
    assert!(exited.log_tail.contains("log.db") && exited.log_tail.contains("in use"), "{}", exited.log_tail);
    // The first one is none the worse for it.
    stage.stock("apple", 1).await?;
    stage.place(tcc_cluster::stage::order("k-1", &[("apple", 1)])).await?;
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_process_is_healthy_and_describes_itself() -> anyhow::Result<()> {
    let stage = quick_stage().await?;
    let services = [
        (Role::Gateway, "order.v1.OrderService"),
        (Role::Gateway, "tcc.v1.Coordinator"),
        (Role::Gateway, "tcc.v1.Admin"),
        (Role::Inventory, "inventory.v1.InventoryService"),
        (Role::Inventory, "tcc.v1.Participant"),
        (Role::Coupon, "coupon.v1.CouponService"),
        (Role::Coupon, "tcc.v1.Participant"),
    ];
    for (role, service) in services {
        let mut health = HealthClient::new(stage.channel(role));
        for service in ["", service] {
            let status = health.check(HealthCheckRequest { service: service.to_owned() }).await?.into_inner().status();
            assert_eq!(status, ServingStatus::Serving, "{role} {service}");
        }
    }
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_ends_when_its_parent_is_gone() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let config = serde_json::json!({
        "listen": "127.0.0.1:0",
        "database_url": format!("sqlite://{}", folder.path().join("inventory.db").display()),
    });
    let mut child = Command::new(env!("CARGO_BIN_EXE_tcc-cluster"))
        .args(["role", "inventory", "--config-json", &config.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = lines.next_line().await?.unwrap();
    assert!(ready.starts_with(r#"{"ready":"127.0.0.1:"#), "{ready}");
    // What the death of a parent does to the pipe.
    drop(child.stdin.take());
    let status = timeout(Duration::from_secs(60), child.wait()).await??;
    assert!(status.success(), "{status}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_configuration_is_named_before_anything_is_opened() -> anyhow::Result<()> {
    let cases = [
        ("gateway", serde_json::json!({ "coordinator": { "try_for_ms": 0 } }), "try_for_ms"),
        ("gateway", serde_json::json!({ "colour": "red" }), "colour"),
        ("gateway", serde_json::json!({ "log": { "database_url": "oracle://x" } }), "database_url"),
        ("inventory", serde_json::json!({ "database_url": "oracle://x" }), "database_url"),
        ("coupon", serde_json::json!({ "participant": { "attempts_max": 0 } }), "attempts_max"),
    ];
    let folder = tempfile::tempdir()?;
    for (role, config, field) in cases {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tcc-cluster"))
            .current_dir(folder.path())
            .args(["role", role, "--config-json", &config.to_string()])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let status = timeout(Duration::from_secs(60), child.wait()).await??;
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).await?;
        assert!(!status.success() && said.contains(field), "{role} {config}: {status}: {said}");
    }
    Ok(())
}
