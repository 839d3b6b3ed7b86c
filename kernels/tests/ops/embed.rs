//! Rows of tables of every type, dense and quantised, at any alignment.

use crate::{Numbers, U, bits, close, same_bits};
use half::{bf16, f16};
use kernels::embed::rows;
use kernels::{Cut, DType, Matrix, Order, TileMut, reference};

/// `[n, k]` in the type's layout, from the second byte on: files align nothing.
fn table(dtype: DType, n: usize, k: usize, seed: u64) -> Vec<u8> {
    let mut numbers = Numbers::new(seed);
    let mut bytes = vec![0xff];
    for _ in 0..n * k {
        let x = numbers.next();
        match dtype {
            DType::F32 => bytes.extend(x.to_le_bytes()),
            DType::F16 => bytes.extend(f16::from_f32(x).to_le_bytes()),
            _ => bytes.extend(bf16::from_f32(x).to_le_bytes()),
        }
    }
    bytes
}

fn value(dtype: DType, bytes: &[u8], i: usize) -> f32 {
    match dtype {
        DType::F32 => f32::from_le_bytes(bytes[1 + 4 * i..][..4].try_into().unwrap()),
        DType::F16 => f16::from_le_bytes([bytes[1 + 2 * i], bytes[2 + 2 * i]]).to_f32(),
        _ => bf16::from_le_bytes([bytes[1 + 2 * i], bytes[2 + 2 * i]]).to_f32(),
    }
}

#[test]
fn rows_of_dense_tables_and_their_positions() {
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        for k in [1, 7, 33, 300, 576] {
            let (tokens, places) = (table(dtype, 9, k, 1), table(dtype, 4, k, 2));
            let matrix =
                |bytes, n| Matrix::new(bytes, dtype, Order::Nk, n, k, dtype.row_bytes(k).unwrap()).unwrap();
            let (tok, pos) = (matrix(&tokens[1..], 9), matrix(&places[1..], 4));
            let (ids, of) = ([8u32, 0, 3, 3, 5], [3u32, 2, 1, 0, 3]);
            let cut = Cut::Pieces(k);
            let plain = same_bits(5, k, cut, |ops, out| (ops.embed)(out, &tok, &ids, 1.0, &[]));
            let sum = same_bits(5, k, cut, |ops, out| (ops.embed)(out, &tok, &ids, 1.0, &[(&pos, &of)]));
            // Positions and token types, after a scale.
            let (types, kinds) = (table(dtype, 2, k, 3), [0u32, 1, 1, 0, 1]);
            let (typ, scale) = (matrix(&types[1..], 2), 3.7f32);
            let all = same_bits(5, k, cut, |ops, out| {
                (ops.embed)(out, &tok, &ids, scale, &[(&pos, &of), (&typ, &kinds)]);
            });
            let all_of = |bytes: &[u8], n: usize| -> Vec<f64> {
                (0..n * k).map(|i| f64::from(value(dtype, bytes, i))).collect()
            };
            let (tok64, pos64, typ64) = (all_of(&tokens, 9), all_of(&places, 4), all_of(&types, 2));
            let more = [(&pos64[..], &of[..]), (&typ64, &kinds)];
            let want = reference::embed(&tok64, &ids, f64::from(scale), &more, k);
            // A product and two sums, each of at most 5.7.
            close(&all, &want, |_| 3.0 * U * 5.7, dtype.name());
            for (r, i) in (0..5).flat_map(|r| (0..k).map(move |i| (r, i))) {
                let token = value(dtype, &tokens, ids[r] as usize * k + i);
                assert_eq!(plain[r * k + i], token);
                let place = value(dtype, &places, of[r] as usize * k + i);
                assert_eq!(sum[r * k + i], token + place);
                let kind = value(dtype, &types, kinds[r] as usize * k + i);
                assert_eq!(all[r * k + i], token * scale + place + kind, "in this order");
            }
        }
    }
}

#[test]
fn rows_of_quantised_tables() {
    for dtype in DType::ALL.into_iter().filter(|dtype| dtype.block() > 1) {
        let (n, k) = (3, 512);
        let row = dtype.row_bytes(k).unwrap();
        // Any bits are a table, but for scales: small ones keep the numbers finite.
        let bytes: Vec<u8> = (0..n * row).map(|i| (i * 37 % 64) as u8).collect();
        let table = Matrix::new(&bytes, dtype, Order::Nk, n, k, row).unwrap();
        let got = same_bits(2, k, Cut::Pieces(k), |ops, out| (ops.embed)(out, &table, &[2, 1], 1.0, &[]));
        let twice = same_bits(2, k, Cut::Pieces(k), |ops, out| {
            (ops.embed)(out, &table, &[2, 1], 1.0, &[(&table, &[2, 1])]);
        });
        for (r, id) in [2, 1].into_iter().enumerate() {
            let mut want = vec![0.0; k];
            kernels::quant::dequantize_row(dtype, &bytes[id * row..][..row], &mut want);
            assert_eq!(bits(&got[r * k..][..k]), bits(&want), "{}", dtype.name());
            let sum: Vec<f32> = want.iter().map(|x| x + x).collect();
            assert_eq!(bits(&twice[r * k..][..k]), bits(&sum), "{} in pieces", dtype.name());
        }
    }
}

#[test]
fn picked_rows_are_copied() {
    let x = Numbers::new(1).vec(6 * 5, 1.0);
    let mut out = vec![0.0; 3 * 5];
    rows(&mut TileMut::part(&mut out, 3, 5, Cut::Pieces(5), 0, 1), &x, 5, &[5, 0, 5]);
    assert_eq!(out, [&x[25..], &x[..5], &x[25..]].concat());
}
