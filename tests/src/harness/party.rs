//! Who speaks with whom in a cluster.

use std::fmt;

use super::{Owner, Role};

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Party {
    /// Whoever orders.
    Clients,
    /// One of the gateways, from 0.
    Gateway(usize),
    /// Stock.
    Inventory,
    /// Coupons.
    Coupon,
    /// Where somebody keeps rows.
    Database(Owner),
}

impl Party {
    /// The processes of a cluster with so many gateways, in the order in which they are started: participants first.
    #[must_use]
    pub fn processes(gateways: usize) -> Vec<Self> {
        [Self::Inventory, Self::Coupon].into_iter().chain((0..gateways).map(Self::Gateway)).collect()
    }

    /// Which kind of process it is; `None`: none of the cluster's.
    #[must_use]
    pub const fn role(self) -> Option<Role> {
        match self {
            Self::Gateway(_) => Some(Role::Gateway),
            Self::Inventory => Some(Role::Inventory),
            Self::Coupon => Some(Role::Coupon),
            Self::Clients | Self::Database(_) => None,
        }
    }
}

/// The gateway is the first of them.
impl From<Role> for Party {
    fn from(role: Role) -> Self {
        match role {
            Role::Gateway => Self::Gateway(0),
            Role::Inventory => Self::Inventory,
            Role::Coupon => Self::Coupon,
        }
    }
}

/// As in the names of log files. The first gateway is called as if it were alone.
impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clients => f.write_str("clients"),
            Self::Gateway(0) => f.write_str("gateway"),
            Self::Gateway(index) => write!(f, "gateway-{}", index + 1),
            Self::Inventory => f.write_str("inventory"),
            Self::Coupon => f.write_str("coupon"),
            Self::Database(owner) => write!(f, "the database of {}", owner.name()),
        }
    }
}
