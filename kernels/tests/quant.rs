//! Stored rows to f32, against the values that the `gguf` Python package computes (`quant/make.py`).

use half::{bf16, f16};
use kernels::DType;
use kernels::quant::dequantize_row;

const GOLDEN: &[u8] = include_bytes!("quant/golden.bin");

fn take<'a>(rest: &mut &'a [u8], n: usize) -> &'a [u8] {
    let (head, tail) = rest.split_at(n);
    *rest = tail;
    head
}

#[test]
fn quantised_blocks_have_the_reference_s_bits() {
    let mut rest = GOLDEN;
    let mut seen = Vec::new();
    while !rest.is_empty() {
        let name = std::str::from_utf8(take(&mut rest, 8)).unwrap().trim_end_matches('\0');
        let dtype = DType::ALL.into_iter().find(|d| d.name() == name).unwrap();
        let mut number = || u32::from_le_bytes(take(&mut rest, 4).try_into().unwrap()) as usize;
        let (blocks, size, elements) = (number(), number(), number());
        assert_eq!((dtype.block_bytes(), dtype.block()), (size, elements), "{name}");
        assert_eq!(dtype.row_bytes(blocks * elements), Some(blocks * size));
        assert_eq!(dtype.row_bytes(blocks * elements - 1), None);
        let bytes = take(&mut rest, blocks * size);
        let expected = take(&mut rest, 4 * blocks * elements);
        let mut found = vec![f32::NAN; blocks * elements];
        dequantize_row(dtype, bytes, &mut found);
        for (i, (found, expected)) in found.iter().zip(expected.as_chunks::<4>().0).enumerate() {
            assert_eq!(found.to_bits(), u32::from_le_bytes(*expected), "{name} element {i}");
        }
        seen.push(dtype);
    }
    let quantised = DType::ALL.into_iter().filter(|d| d.block() > 1);
    assert!(quantised.clone().all(|d| seen.contains(&d)) && seen.len() == quantised.count());
}

#[test]
fn every_half_value_is_exact() {
    let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    let mut found = vec![0.0; 1 << 16];
    let check = |found: &[f32], value: &dyn Fn(u16) -> f32| {
        for (bits, found) in (0..=u16::MAX).zip(found) {
            let expected = value(bits);
            assert!(
                found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan()),
                "{bits:04x}"
            );
        }
    };
    dequantize_row(DType::F16, &all, &mut found);
    check(&found, &|bits| f16::from_bits(bits).to_f32());
    dequantize_row(DType::BF16, &all, &mut found);
    check(&found, &|bits| bf16::from_bits(bits).to_f32());
}

#[test]
fn f32_is_copied_from_any_address() {
    let values = [0.0, -0.0, 1.5, f32::INFINITY, f32::MIN_POSITIVE / 2.0];
    let bytes: Vec<u8> = [9].into_iter().chain(values.iter().flat_map(|v| v.to_le_bytes())).collect();
    let mut found = [7.0; 5];
    dequantize_row(DType::F32, &bytes[1..], &mut found);
    assert_eq!(found.map(f32::to_bits), values.map(f32::to_bits));
}

#[test]
#[should_panic(expected = "expected blocks of 34 bytes")]
fn a_row_of_the_wrong_length_is_refused() {
    dequantize_row(DType::Q8_0, &[0; 68], &mut [0.0; 32]);
}
