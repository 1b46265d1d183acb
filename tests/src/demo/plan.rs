//! What the demo orders: the same for the same seed. Pure.

use std::collections::BTreeSet;

use tcc_proto::order::v1::OrderLine;

/// SKUs, of which the last two are scarce.
const SKUS: usize = 20;
const SCARCE_SKUS: usize = 2;
/// More than there ever is of any SKU.
const TOO_MANY: i64 = 1_000_000_000;

/// What an order is meant to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Stock only.
    Plain,
    /// With a coupon of the user's own.
    WithCoupon,
    /// Asks for more than there is.
    TooMany,
    /// With somebody else's coupon.
    ForeignCoupon,
    /// With a coupon that an order used before.
    UsedCoupon,
    /// With a coupon that has expired.
    ExpiredCoupon,
    /// Held, then confirmed.
    HoldConfirm,
    /// Held, then cancelled.
    HoldCancel,
    /// Placed twice with one key, at the same time.
    Repeated,
}

impl Kind {
    pub(crate) const ALL: [Self; 9] = [
        Self::Plain,
        Self::WithCoupon,
        Self::TooMany,
        Self::ForeignCoupon,
        Self::UsedCoupon,
        Self::ExpiredCoupon,
        Self::HoldConfirm,
        Self::HoldCancel,
        Self::Repeated,
    ];

    /// Its share of a hundred orders.
    const fn share(self) -> u64 {
        match self {
            Self::Plain => 48,
            Self::WithCoupon => 14,
            Self::TooMany | Self::HoldConfirm | Self::HoldCancel => 6,
            Self::ForeignCoupon | Self::UsedCoupon | Self::ExpiredCoupon => 4,
            Self::Repeated => 8,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::WithCoupon => "with coupon",
            Self::TooMany => "more than there is",
            Self::ForeignCoupon => "someone else's coupon",
            Self::UsedCoupon => "used coupon",
            Self::ExpiredCoupon => "expired coupon",
            Self::HoldConfirm => "held, then confirmed",
            Self::HoldCancel => "held, then cancelled",
            Self::Repeated => "placed twice, one key",
        }
    }

    /// The only refusal that fits, if the order is to be refused.
    pub(crate) const fn refusal(self) -> Option<&'static str> {
        match self {
            Self::TooMany => Some("OUT_OF_STOCK"),
            Self::ForeignCoupon => Some("NOT_OWNER"),
            Self::UsedCoupon => Some("COUPON_USED"),
            Self::ExpiredCoupon => Some("COUPON_EXPIRED"),
            Self::HoldCancel => Some("CANCEL_REQUESTED"),
            Self::Plain | Self::WithCoupon | Self::HoldConfirm | Self::Repeated => None,
        }
    }

    pub(crate) const fn holds(self) -> bool {
        match self {
            Self::HoldConfirm | Self::HoldCancel => true,
            Self::Plain
            | Self::WithCoupon
            | Self::TooMany
            | Self::ForeignCoupon
            | Self::UsedCoupon
            | Self::ExpiredCoupon
            | Self::Repeated => false,
        }
    }

    /// Whether its lines may hold scarce SKUs, so that some are refused for stock beside what they are meant to show.
    const fn may_be_scarce(self) -> bool {
        match self {
            Self::Plain | Self::WithCoupon | Self::Repeated => true,
            Self::TooMany
            | Self::ForeignCoupon
            | Self::UsedCoupon
            | Self::ExpiredCoupon
            | Self::HoldConfirm
            | Self::HoldCancel => false,
        }
    }
}

/// One order to place.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) kind: Kind,
    pub(crate) order_key: String,
    pub(crate) user_id: String,
    pub(crate) lines: Vec<OrderLine>,
    pub(crate) coupon_id: String,
    /// One of its SKUs may run out.
    pub(crate) scarce: bool,
}

/// One coupon to issue.
#[derive(Clone, Debug)]
pub(crate) struct PlannedCoupon {
    pub(crate) coupon_id: String,
    pub(crate) user_id: String,
    pub(crate) expired: bool,
}

/// Everything.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) stock: Vec<(String, i64)>,
    pub(crate) coupons: Vec<PlannedCoupon>,
    /// Placed, and confirmed, before the others: it uses the coupon that others then find used.
    pub(crate) first: Planned,
    pub(crate) orders: Vec<Planned>,
}

impl Plan {
    /// For so many orders.
    pub(crate) fn new(orders: usize, seed: u64) -> Self {
        let mut dice = Dice(seed);
        let plenty = i64::try_from(orders).unwrap_or(i64::MAX).saturating_mul(2).saturating_add(100).min(TOO_MANY / 10);
        let scarce = i64::try_from(orders / 40).unwrap_or(0).clamp(5, TOO_MANY / 10);
        let stock = (0..SKUS).map(|index| (sku(index), if index < SKUS - SCARCE_SKUS { plenty } else { scarce })).collect();
        let used = PlannedCoupon { coupon_id: "used".to_owned(), user_id: "user-0".to_owned(), expired: false };
        let first = Planned {
            kind: Kind::WithCoupon,
            order_key: "demo-first".to_owned(),
            user_id: used.user_id.clone(),
            lines: vec![OrderLine { sku: sku(0), quantity: 1 }],
            coupon_id: used.coupon_id.clone(),
            scarce: false,
        };
        let mut plan = Self { stock, coupons: vec![used], first, orders: Vec::with_capacity(orders) };
        for number in 0..orders {
            // The first few show every kind, however few orders there are.
            let kind = Kind::ALL.get(number).copied().unwrap_or_else(|| dice.kind());
            plan.add(number, kind, &mut dice);
        }
        plan
    }

    fn add(&mut self, number: usize, kind: Kind, dice: &mut Dice) {
        let user_id = format!("user-{}", 1 + dice.below(100));
        let coupon_id = format!("coupon-{number}");
        let mut issue = |owner: &str, expired| {
            let coupon = PlannedCoupon { coupon_id: coupon_id.clone(), user_id: owner.to_owned(), expired };
            self.coupons.push(coupon);
            coupon_id.clone()
        };
        let (user_id, coupon_id) = match kind {
            Kind::WithCoupon => (user_id.clone(), issue(&user_id, false)),
            Kind::HoldConfirm | Kind::HoldCancel if dice.below(2) == 0 => (user_id.clone(), issue(&user_id, false)),
            Kind::ForeignCoupon => (user_id, issue("somebody-else", false)),
            Kind::ExpiredCoupon => (user_id.clone(), issue(&user_id, true)),
            Kind::UsedCoupon => (self.first.user_id.clone(), self.first.coupon_id.clone()),
            Kind::Plain | Kind::TooMany | Kind::HoldConfirm | Kind::HoldCancel | Kind::Repeated => (user_id, String::new()),
        };
        let skus = if kind.may_be_scarce() { SKUS } else { SKUS - SCARCE_SKUS };
        let picked: BTreeSet<usize> = (0..=dice.below(3)).map(|_| dice.below_usize(skus)).collect();
        let mut lines: Vec<OrderLine> = picked
            .iter()
            .map(|index| OrderLine { sku: sku(*index), quantity: i64::from(1 + u8::from(dice.below(2) == 0)) })
            .collect();
        if kind == Kind::TooMany
            && let Some(last) = lines.last_mut()
        {
            last.quantity = TOO_MANY;
        }
        let scarce = picked.iter().any(|index| *index >= SKUS - SCARCE_SKUS);
        self.orders.push(Planned { kind, order_key: format!("demo-{number}"), user_id, lines, coupon_id, scarce });
    }
}

fn sku(index: usize) -> String {
    format!("sku-{:02}", index + 1)
}

/// SplitMix64: small, seeded, and the same everywhere. Source: Steele, Lea, Flood (2014).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn below_usize(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).unwrap_or(0)
    }

    fn kind(&mut self) -> Kind {
        let mut rest = self.below(100);
        for kind in Kind::ALL {
            if rest < kind.share() {
                return kind;
            }
            rest -= kind.share();
        }
        Kind::Plain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_make_a_hundred() {
        assert_eq!(Kind::ALL.map(Kind::share).iter().sum::<u64>(), 100);
    }

    #[test]
    fn the_same_seed_plans_the_same_orders_of_every_kind() {
        let plan = |seed| format!("{:?}", Plan::new(500, seed));
        assert_eq!(plan(1), plan(1));
        assert_ne!(plan(1), plan(2));
        let orders = Plan::new(9, 1).orders;
        for kind in Kind::ALL {
            assert!(orders.iter().any(|order| order.kind == kind), "{kind:?}");
        }
    }

    #[test]
    fn every_coupon_but_the_used_one_belongs_to_one_order() {
        let plan = Plan::new(1_000, 7);
        for coupon in plan.coupons.iter().skip(1) {
            assert_eq!(plan.orders.iter().filter(|order| order.coupon_id == coupon.coupon_id).count(), 1);
        }
    }
}
