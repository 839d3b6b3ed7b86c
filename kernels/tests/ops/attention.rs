//! Attention: masks, windows, caches, pages of garbage, and all the ways the same queries can be computed together.

use crate::world::{World, rows_of, shapes};
use crate::{bits, isas};
use half::f16;
use kernels::attention::{AttendShape, Cache, PAGE, Row, head_words, splits};
use kernels::{Cut, Ops};

#[test]
fn attention_is_what_the_paper_says() {
    for shape in shapes() {
        let len = if shape.dim > 64 { 70 } else { 150 };
        let mut world = World::new(shape, &[len], 1);
        let all = rows_of(0, 0..len);
        world.append(&all);
        for (window, causal) in [(None, true), (Some(1), true), (Some(67), true), (None, false)] {
            let args = world.args(&all, window, causal);
            let got = world.attend(Ops::best(), &args, None, 1);
            world.check(&got, &args);
        }
    }
}

#[test]
fn long_contexts_are_what_the_paper_says() {
    for cache in Cache::ALL {
        let shape = AttendShape { heads: 3, kv_heads: 1, dim: 16, cache };
        let mut world = World::new(shape, &[2300], 9);
        world.append(&rows_of(0, 0..2300));
        for window in [None, Some(1200)] {
            let rows = rows_of(0, 2293..2300);
            let args = world.args(&rows, window, true);
            let got = world.attend(Ops::best(), &args, None, 1);
            world.check(&got, &args);
        }
    }
}

#[test]
fn cutting_along_the_keys_changes_no_bit() {
    for shape in shapes().filter(|shape| shape.heads > 2) {
        // Parts of one chunk and of two; a sequence that has only the first; windows that begin within a part.
        let mut world = World::new(shape, &[1300, 3], 10);
        let all = [rows_of(0, 0..1300), rows_of(1, 0..3)].concat();
        world.append(&all);
        for window in [None, Some(1), Some(64), Some(250), Some(1101)] {
            let few = [
                rows_of(0, 1299..1300),
                rows_of(0, 1022..1026),
                [rows_of(0, 1150..1152), rows_of(1, 1..2)].concat(),
            ];
            for rows in few.iter().filter(|rows| splits(&shape, rows.len())) {
                let args = world.args(rows, window, true);
                let want = world.attend(isas()[0], &args, None, 1);
                assert!(want.iter().all(|x| x.is_finite()));
                for ops in isas() {
                    for of in [1, 2, 5] {
                        let got = world.attend_split(ops, &args, of);
                        assert!(
                            bits(&got) == bits(&want),
                            "{shape:?} {window:?} {} {rows:?} {of}",
                            ops.name()
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn what_is_not_finite_stays_so_in_eight_bits() {
    let shape = AttendShape { heads: 1, kv_heads: 1, dim: 4, cache: Cache::Q8 };
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for key in [false, true] {
            let mut world = World::new(shape, &[3], 11);
            let spoilt = if key { &mut world.keys } else { &mut world.values };
            spoilt[0][5] = bad;
            let rows = rows_of(0, 0..3);
            world.append(&rows);
            let got = world.attend(Ops::best(), &world.args(&rows, None, true), None, 1);
            assert!(got[..4].iter().all(|x| x.is_finite()), "the row before");
            assert!(got[4..].iter().all(|x| x.is_nan()), "{bad} {key}: {got:?}");
        }
    }
}

#[test]
fn tiny_and_zero_vectors_survive_eight_bits() {
    let shape = AttendShape { heads: 1, kv_heads: 1, dim: 16, cache: Cache::Q8 };
    let mut world = World::new(shape, &[3], 12);
    world.keys[0].fill(0.0);
    world.values[0].fill(0.0);
    world.values[0][32..].fill(f32::from_bits(1)); // its scale is zero
    let rows = rows_of(0, 0..3);
    world.append(&rows);
    let got = world.attend(Ops::best(), &world.args(&rows, None, true), None, 1);
    assert!(got.iter().all(|x| *x == 0.0), "{got:?}");
}

#[test]
fn nothing_but_the_numbers_decides_the_bits() {
    for shape in shapes().filter(|shape| shape.cache == Cache::F32 || shape.dim % 16 != 0) {
        let mut world = World::new(shape, &[131, 5, 64], 2);
        let rows: Vec<Row> = [rows_of(0, 0..131), rows_of(1, 0..5), rows_of(2, 0..64)].concat();
        world.append(&rows);
        let cols = shape.heads * shape.dim;
        for (window, causal) in [(None, true), (Some(3), true), (Some(66), true), (None, false)] {
            let args = world.args(&rows, window, causal);
            let all = world.attend(isas()[0], &args, None, 1);
            for ops in isas() {
                let group = shape.heads / shape.kv_heads;
                for (rows, heads, of) in
                    [(1, 1, 7), (7, 1, 3), (64, 1, 2), (12, group, 2), (5, shape.heads, 1)]
                {
                    let cut = Cut::Blocks { rows, cols: heads * shape.dim };
                    let got = world.attend(ops, &args, Some(cut), of);
                    assert!(bits(&got) == bits(&all), "{shape:?} {window:?} {} {cut:?} {of}", ops.name());
                }
                for r in [0, 63, 64, 130, 133, 199] {
                    let alone = world.attend(ops, &world.args(&rows[r..=r], window, causal), None, 1);
                    assert!(
                        bits(&alone) == bits(&all[r * cols..][..cols]),
                        "{shape:?} {window:?} row {r} alone"
                    );
                }
            }
        }
    }
}

#[test]
fn step_by_step_is_prefill_and_garbage_never_leaks() {
    for shape in shapes().filter(|shape| shape.dim <= 80) {
        for window in [None, Some(40)] {
            let (len, seq) = (140, 0);
            let rows = rows_of(seq, 0..len);
            let mut whole = World::new(shape, &[len], 3);
            whole.append(&rows);
            let want = whole.attend(Ops::best(), &whole.args(&rows, window, true), None, 2);
            assert!(want.iter().all(|x| x.is_finite()));
            // Steps of one, then one of many: every page after the last row is still garbage.
            let (mut world, mut got) = (World::new(shape, &[len], 3), Vec::new());
            for step in (0..70).map(|p| p..p + 1).chain([70..100, 100..101, 101..140]) {
                let rows = rows_of(seq, step);
                world.append(&rows);
                got.extend(world.attend(Ops::best(), &world.args(&rows, window, true), None, 1));
            }
            assert!(bits(&got) == bits(&want), "{shape:?} {window:?}");
        }
    }
}

#[test]
fn a_later_value_reaches_no_earlier_row() {
    let shape = AttendShape { heads: 3, kv_heads: 1, dim: 16, cache: Cache::F32 };
    let rows = rows_of(0, 0..70);
    // Blocks of five rows, panels of five queries: rows 41 and 42 share one, and so do 63 and 64, of two pages.
    let cut = Cut::Blocks { rows: 5, cols: 48 };
    for (bad, from) in [f32::NAN, f32::INFINITY, -1.0].into_iter().flat_map(|bad| [(bad, 42), (bad, 64)]) {
        let mut world = World::new(shape, &[70], 4);
        world.values[0][from * 16..].fill(bad);
        world.append(&rows);
        for ops in isas() {
            let all = world.attend(ops, &world.args(&rows, None, true), Some(cut), 1);
            for r in [20, 40, 41, 61, 63].into_iter().filter(|r| *r < from) {
                let alone = world.attend(ops, &world.args(&rows[r..=r], None, true), None, 1);
                assert_eq!(bits(&all[r * 48..][..48]), bits(&alone), "row {r}, {bad} from {from} on");
                assert!(alone.iter().all(|x| x.is_finite()));
            }
        }
    }
}

#[test]
fn equal_scores_average_exactly() {
    // exp(0) is exactly 1: values that are all 3 come out as 3, whatever their number.
    let shape = AttendShape { heads: 2, kv_heads: 2, dim: 8, cache: Cache::BF16 };
    let mut world = World::new(shape, &[200], 5);
    world.keys[0].fill(1.0);
    world.values[0].fill(3.0);
    let rows = rows_of(0, 0..200);
    world.append(&rows);
    for ops in isas() {
        let got = world.attend(ops, &world.args(&rows, None, true), None, 1);
        assert!(got.iter().all(|x| *x == 3.0));
    }
}

#[test]
fn infinite_scores_stay_where_they_are() {
    // All keys of the first page score -inf: it counts for nothing, and the second page decides.
    let shape = AttendShape { heads: 1, kv_heads: 1, dim: 2, cache: Cache::F32 };
    let mut world = World::new(shape, &[100], 6);
    world.queries[0].fill(1.0);
    world.keys[0][..2 * PAGE].fill(f32::NEG_INFINITY);
    let rows = rows_of(0, 0..100);
    world.append(&rows);
    for ops in isas() {
        let got = world.attend(ops, &world.args(&rows[99..], None, true), None, 1);
        assert!(got.iter().all(|x| x.is_finite() && *x != 0.0), "{got:?}");
    }
}

#[test]
fn workers_append_their_own_heads() {
    let shape = AttendShape { heads: 6, kv_heads: 3, dim: 5, cache: Cache::F16 };
    let mut world = World::new(shape, &[66], 7);
    world.append(&rows_of(0, 0..66));
    let (page, words) = (world.table[1] as usize, head_words(5, Cache::F16));
    let head = &world.pages.words(page as u32).unwrap()[2 * words..];
    let halves: Vec<f16> = head
        .iter()
        .flat_map(|w| [w.to_bits() as u16, (w.to_bits() >> 16) as u16])
        .map(f16::from_bits)
        .collect();
    let (keys, values) = halves.split_at(5 * PAGE);
    for d in 0..5 {
        let at = 65 * 15 + 10 + d;
        assert_eq!(keys[d * PAGE + 1], f16::from_f32(world.keys[0][at]));
        assert_eq!(values[5 + d], f16::from_f32(world.values[0][at]));
        assert!(keys[d * PAGE + 2].is_nan(), "slots without a position are left alone");
    }
}

#[test]
fn eight_bits_lie_as_documented() {
    let shape = AttendShape { heads: 2, kv_heads: 2, dim: 3, cache: Cache::Q8 };
    let mut world = World::new(shape, &[66], 13);
    world.append(&rows_of(0, 0..66));
    let words = head_words(3, Cache::Q8);
    assert_eq!(words * 4, 2 * 3 * PAGE + 2 * PAGE * 4);
    let head = &world.pages.words(world.table[1]).unwrap()[words..];
    let (bytes, scales) = head.split_at(words - 2 * PAGE);
    let bytes: Vec<i8> = bytes.iter().flat_map(|w| w.to_le_bytes()).map(|b| b as i8).collect();
    let (keys, values) = bytes.split_at(3 * PAGE);
    let [k, v] = [&world.keys[0], &world.values[0]].map(|x| &x[65 * 6 + 3..65 * 6 + 6]);
    for (x, scale) in [(k, scales[1]), (v, scales[PAGE + 1])] {
        let most = x.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        assert_eq!(scale, most / 127.0);
    }
    for d in 0..3 {
        assert_eq!(f32::from(keys[d * PAGE + 1]), (k[d] / scales[1]).round_ties_even());
        assert_eq!(f32::from(values[3 + d]), (v[d] / scales[PAGE + 1]).round_ties_even());
    }
    assert!(scales[2].is_nan(), "slots without a position are left alone");
}

#[test]
fn no_rows_are_fine() {
    for shape in shapes() {
        let world = World::new(shape, &[0], 8);
        assert!(world.attend(Ops::best(), &world.args(&[], None, true), None, 1).is_empty());
    }
}
