//! The stored numbers of the enums, the same in every database. Backends read and write them only through here.

use tcc_machine::{Decides, Settled, StuckKind, TryOrder};

use crate::AuditAction;

/// An enum that is stored as a number.
pub(crate) trait Code: Copy + Sized + 'static {
    /// All of them.
    const ALL: &'static [Self];

    /// Its stored number.
    fn code(self) -> i64;

    /// From its stored number.
    fn from_code(code: i64) -> Option<Self> {
        Self::ALL.iter().copied().find(|value| value.code() == code)
    }
}

macro_rules! codes {
    ($($name:ident { $($variant:ident),+ })+) => {$(
        impl Code for $name {
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            fn code(self) -> i64 {
                // Exhaustive, so that a new variant cannot be left out of `ALL`.
                match self {
                    $(Self::$variant => Self::$variant as i64,)+
                }
            }
        }
    )+};
}

codes! {
    TryOrder { Parallel, Sequential }
    Decides { AtVotes, OnRequest, OnRequestOpen }
    Settled { Acknowledged, Outside }
    StuckKind { Unreachable, UnknownParticipant, NoReservation, OtherOutcome }
    AuditAction { Probe, TryAnew, MarkSettled }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads_back<C: Code + PartialEq + std::fmt::Debug>() {
        for value in C::ALL {
            assert_eq!(C::from_code(value.code()), Some(*value));
        }
        assert_eq!(C::from_code(0), None);
        assert_eq!(C::from_code(99), None);
    }

    #[test]
    fn stored_numbers_read_back() {
        reads_back::<TryOrder>();
        reads_back::<Decides>();
        reads_back::<Settled>();
        reads_back::<StuckKind>();
        reads_back::<AuditAction>();
    }
}
