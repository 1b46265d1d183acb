//! The contracts, as Rust: one module for each package under `proto/`, generated at build time from the files that stand
//! beside this crate's manifest. Nothing here is written by hand but the module tree.
//!
//! Only adapters use these types: inside the framework the words of `tcc-types` are spoken.

#![allow(
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::missing_errors_doc,
    clippy::or_fun_call,
    clippy::too_many_lines,
    missing_docs,
    unreachable_pub,
    reason = "generated code"
)]

/// Participant, coordinator and admin.
pub mod tcc {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("tcc.v1");
    }
}

/// The order API of the gateway.
pub mod order {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("order.v1");
    }
}

/// Stock: payloads of inventory's branches, and its own API.
pub mod inventory {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("inventory.v1");
    }
}

/// Coupons: payloads of coupon's branches, and their own API.
pub mod coupon {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("coupon.v1");
    }
}

/// Every contract as one encoded `google.protobuf.FileDescriptorSet`, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
