//! Floor 0: how the elements of a stored tensor are laid out. Knows no arithmetic.

/// Element types that kernels read. All are little-endian; a block-quantised type is named as ggml names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of a binary32.
    BF16,
    /// 32 signed bytes and a scale.
    Q8_0,
    /// 32 nibbles around zero and a scale.
    Q4_0,
    /// 32 nibbles, a scale and a minimum.
    Q4_1,
    /// 32 five-bit values around zero and a scale.
    Q5_0,
    /// 32 five-bit values, a scale and a minimum.
    Q5_1,
    /// 256 nibbles in eight groups, each with a six-bit scale and minimum.
    Q4K,
    /// 256 five-bit values in eight groups, each with a six-bit scale and minimum.
    Q5K,
    /// 256 six-bit values in sixteen groups, each with an eight-bit scale.
    Q6K,
    /// 32 nibbles that index a table of sixteen values, and a scale.
    IQ4NL,
}

impl DType {
    /// Every type.
    pub const ALL: [DType; 12] = [
        DType::F32,
        DType::F16,
        DType::BF16,
        DType::Q8_0,
        DType::Q4_0,
        DType::Q4_1,
        DType::Q5_0,
        DType::Q5_1,
        DType::Q4K,
        DType::Q5K,
        DType::Q6K,
        DType::IQ4NL,
    ];

    /// Elements of a block: 1 for dense types.
    pub const fn block(self) -> usize {
        match self {
            DType::F32 | DType::F16 | DType::BF16 => 1,
            DType::Q8_0 | DType::Q4_0 | DType::Q4_1 | DType::Q5_0 | DType::Q5_1 | DType::IQ4NL => 32,
            DType::Q4K | DType::Q5K | DType::Q6K => 256,
        }
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::F16 | DType::BF16 => 2,
            DType::Q8_0 => 34,
            DType::Q4_0 | DType::IQ4NL => 18,
            DType::Q4_1 => 20,
            DType::Q5_0 => 22,
            DType::Q5_1 => 24,
            DType::Q4K => 144,
            DType::Q5K => 176,
            DType::Q6K => 210,
        }
    }

    /// Name in messages.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "F32",
            DType::F16 => "F16",
            DType::BF16 => "BF16",
            DType::Q8_0 => "Q8_0",
            DType::Q4_0 => "Q4_0",
            DType::Q4_1 => "Q4_1",
            DType::Q5_0 => "Q5_0",
            DType::Q5_1 => "Q5_1",
            DType::Q4K => "Q4_K",
            DType::Q5K => "Q5_K",
            DType::Q6K => "Q6_K",
            DType::IQ4NL => "IQ4_NL",
        }
    }

    /// Bytes of a row of `k` elements; `None` where `k` is not whole blocks or too large.
    pub const fn row_bytes(self, k: usize) -> Option<usize> {
        if !k.is_multiple_of(self.block()) {
            return None;
        }
        (k / self.block()).checked_mul(self.block_bytes())
    }
}
