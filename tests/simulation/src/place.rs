//! Who there is: the machines that run something, and the databases.

use std::fmt;

use serde::Serialize;

/// A machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(crate) enum Host {
    Gateway(u8),
    Inventory(u8),
    Coupon(u8),
    Client(u8),
    Operator(u8),
}

impl Host {
    /// Where its server listens.
    pub(crate) const PORT: u16 = 50_051;

    /// What the network calls it.
    pub(crate) fn name(self) -> String {
        self.to_string()
    }

    /// Its address as a URL.
    pub(crate) fn url(self) -> String {
        format!("http://{self}:{}", Self::PORT)
    }

    /// By its name.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        let (kind, number) = name.split_once('-')?;
        let number = number.parse().ok()?;
        match kind {
            "gateway" => Some(Self::Gateway(number)),
            "inventory" => Some(Self::Inventory(number)),
            "coupon" => Some(Self::Coupon(number)),
            "client" => Some(Self::Client(number)),
            "operator" => Some(Self::Operator(number)),
            _ => None,
        }
    }

    /// The databases that it uses.
    pub(crate) const fn databases(self) -> &'static [Db] {
        match self {
            Self::Gateway(_) => &[Db::Log, Db::Orders],
            Self::Inventory(_) => &[Db::Inventory],
            Self::Coupon(_) => &[Db::Coupon],
            Self::Client(_) | Self::Operator(_) => &[],
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, number) = match self {
            Self::Gateway(number) => ("gateway", number),
            Self::Inventory(number) => ("inventory", number),
            Self::Coupon(number) => ("coupon", number),
            Self::Client(number) => ("client", number),
            Self::Operator(number) => ("operator", number),
        };
        f.pad(&format!("{kind}-{number}"))
    }
}

/// A database, a machine of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(crate) enum Db {
    Log,
    Orders,
    Inventory,
    Coupon,
}

impl Db {
    pub(crate) const ALL: [Self; 4] = [Self::Log, Self::Orders, Self::Inventory, Self::Coupon];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Log => "log-db",
            Self::Orders => "orders-db",
            Self::Inventory => "inventory-db",
            Self::Coupon => "coupon-db",
        }
    }
}

impl fmt::Display for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
