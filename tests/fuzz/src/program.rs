//! Random bytes read as instructions: what to change, and how. Used by the mutators; never reads past its end, where all is zero.

/// A cursor over random bytes.
#[derive(Debug)]
pub struct Program<'a>(&'a [u8]);

impl<'a> Program<'a> {
    /// From its beginning.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next byte; 0 at the end.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number below `count`, which is at least 1 and no more than 65,536.
    pub fn below(&mut self, count: usize) -> usize {
        usize::from(u16::from_le_bytes([self.byte(), self.byte()])) % count.max(1)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        (0..8).fold(0, |number, _| number << 8 | u64::from(self.byte()))
    }

    /// True about once in `count` times.
    pub fn once_in(&mut self, count: u8) -> bool {
        self.byte() % count.max(1) == 1
    }

    /// One of them; `None` if there is none.
    pub fn one_of<'t, T>(&mut self, items: &'t [T]) -> Option<&'t T> {
        let place = self.below(items.len());
        items.get(place)
    }

    /// Nothing is left.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// All that is left, and nothing after it.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}
