//! Sixty-four bytes at once: where in a block which byte is.
//!
//! A mask has one bit for each byte of the block, the lowest for the first. With WebAssembly's
//! vectors a mask takes a dozen instructions; the other variant is for native builds and says the
//! same.

use lanes::Lanes;

/// The bytes of a block.
pub(crate) const BLOCK: usize = 64;

/// A block of bytes.
pub(crate) struct Block([Lanes; 4]);

impl Block {
    pub(crate) fn of(bytes: &[u8; BLOCK]) -> Self {
        let (lanes, _) = bytes.as_chunks();
        match lanes {
            [a, b, c, d] => Self([lanes::load(a), lanes::load(b), lanes::load(c), lanes::load(d)]),
            _ => Self([lanes::load(&[0; 16]); 4]),
        }
    }

    /// Whether a byte is in it.
    pub(crate) fn has(&self, byte: u8) -> bool {
        lanes::any(self.0.map(|lanes| lanes::found(lanes, byte)))
    }

    /// Whether a quotation mark is in it that one of these bytes follows. The other block begins one
    /// byte later.
    pub(crate) fn has_quoted(&self, next: &Self, [x, y, z]: [u8; 3]) -> bool {
        let ([a, b, c, d], [e, f, g, h]) = (self.0, next.0);
        lanes::any([[a, e], [b, f], [c, g], [d, h]].map(|[quotes, letters]| {
            let others = lanes::or(lanes::found(letters, y), lanes::found(letters, z));
            let letters = lanes::or(lanes::found(letters, x), others);
            lanes::and(lanes::found(quotes, b'"'), letters)
        }))
    }

    /// Where such a quotation mark is.
    pub(crate) fn quoted(&self, next: &Self, [x, y, z]: [u8; 3]) -> u64 {
        self.equal(b'"') & (next.equal(x) | next.equal(y) | next.equal(z))
    }

    /// Where a byte is.
    pub(crate) fn equal(&self, byte: u8) -> u64 {
        self.mask(|lanes| lanes::equal(lanes, byte))
    }

    /// Where an opening bracket is. `[` and `{` differ in one bit.
    pub(crate) fn opening(&self) -> u64 {
        self.mask(|lanes| lanes::equal_but_for(lanes, 0x20, b'{') | lanes::equal(lanes, b'('))
    }

    /// Where a closing bracket is.
    pub(crate) fn closing(&self) -> u64 {
        self.mask(|lanes| lanes::equal_but_for(lanes, 0x20, b'}') | lanes::equal(lanes, b')'))
    }

    #[inline(always)]
    fn mask(&self, of: impl Fn(Lanes) -> u16) -> u64 {
        let [a, b, c, d] = self.0.map(|lanes| u64::from(of(lanes)));
        a | b << 16 | c << 32 | d << 48
    }
}

/// Where a byte is escaped: it follows an odd number of backslashes. `is_escaped` says it of the
/// first byte, and afterwards of the one behind the block.
pub(crate) fn escaped(backslashes: u64, is_escaped: &mut bool) -> u64 {
    const EVEN: u64 = 0x5555_5555_5555_5555;
    let carry = u64::from(*is_escaped);
    if backslashes == 0 {
        *is_escaped = false;
        return carry;
    }
    // An escaped backslash escapes nothing. The sum runs through each run of backslashes that
    // begins at an odd place, and so tells the runs of which the end has the wrong parity.
    let escaping = backslashes & !carry;
    let follows = escaping << 1 | carry;
    let odd_starts = escaping & !EVEN & !follows;
    let (sum, overflows) = odd_starts.overflowing_add(escaping);
    *is_escaped = overflows;
    (EVEN ^ (sum << 1)) & follows
}

/// For each place whether the number of ones up to it is odd.
pub(crate) fn parity(mut ones: u64) -> u64 {
    for distance in [1, 2, 4, 8, 16, 32] {
        ones ^= ones << distance;
    }
    ones
}

#[cfg(target_arch = "wasm32")]
mod lanes {
    use core::arch::wasm32::{u8x16_bitmask, u8x16_eq, u8x16_splat, u64x2, v128, v128_any_true};
    pub(super) use core::arch::wasm32::{v128_and as and, v128_or as or};

    pub(super) type Lanes = v128;
    /// All bits of a byte that was found, and none of another.
    pub(super) type Found = v128;

    #[inline(always)]
    pub(super) fn found(lanes: Lanes, byte: u8) -> Found {
        u8x16_eq(lanes, u8x16_splat(byte))
    }

    #[inline(always)]
    pub(super) fn any([a, b, c, d]: [Found; 4]) -> bool {
        v128_any_true(or(or(a, b), or(c, d)))
    }

    #[inline(always)]
    pub(super) fn load(bytes: &[u8; 16]) -> Lanes {
        let both = u128::from_le_bytes(*bytes);
        u64x2(both as u64, (both >> 64) as u64)
    }

    #[inline(always)]
    pub(super) fn equal(lanes: Lanes, byte: u8) -> u16 {
        u8x16_bitmask(found(lanes, byte))
    }

    #[inline(always)]
    pub(super) fn equal_but_for(lanes: Lanes, bit: u8, byte: u8) -> u16 {
        equal(or(lanes, u8x16_splat(bit)), byte)
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod lanes {
    pub(super) type Lanes = [u8; 16];
    /// All bits of a byte that was found, and none of another.
    pub(super) type Found = [u8; 16];

    pub(super) fn found(lanes: Lanes, byte: u8) -> Found {
        lanes.map(|lane| if lane == byte { 0xff } else { 0 })
    }

    pub(super) fn and(one: Found, other: Found) -> Found {
        std::array::from_fn(|at| one.get(at).unwrap_or(&0) & other.get(at).unwrap_or(&0))
    }

    pub(super) fn or(one: Found, other: Found) -> Found {
        std::array::from_fn(|at| one.get(at).unwrap_or(&0) | other.get(at).unwrap_or(&0))
    }

    pub(super) fn any(found: [Found; 4]) -> bool {
        found != [[0; 16]; 4]
    }

    pub(super) fn load(bytes: &[u8; 16]) -> Lanes {
        *bytes
    }

    pub(super) fn equal(lanes: Lanes, byte: u8) -> u16 {
        lanes.iter().rev().fold(0, |mask, &lane| mask << 1 | u16::from(lane == byte))
    }

    pub(super) fn equal_but_for(lanes: Lanes, bit: u8, byte: u8) -> u16 {
        equal(lanes.map(|lane| lane | bit), byte)
    }
}
