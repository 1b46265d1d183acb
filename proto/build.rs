//! Generates the Rust code of every contract, and one descriptor set for reflection, without protoc.

use std::{env, error::Error, fs, path::PathBuf};

/// Every contract; those that a file imports come along by themselves.
const PROTOS: [&str; 6] = [
    "tcc/v1/participant.proto",
    "tcc/v1/coordinator.proto",
    "tcc/v1/admin.proto",
    "order/v1/order.proto",
    "inventory/v1/inventory.proto",
    "coupon/v1/coupon.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    for proto in PROTOS {
        println!("cargo::rerun-if-changed={proto}");
    }
    let descriptors = protox::compile(PROTOS, ["."])?;

    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    let mut encoded = Vec::new();
    prost::Message::encode(&descriptors, &mut encoded)?;
    fs::write(out_dir.join("descriptors.bin"), encoded)?;

    let mut config = tonic_prost_build::Config::new();
    config.enable_type_names();
    config.type_name_domain(["."], "type.googleapis.com");
    tonic_prost_build::configure().compile_fds_with_config(descriptors, config)?;
    Ok(())
}
