//! Attention beyond the causal plain one: windows on both sides, capped and biased scores, sources of other lengths; and
//! all the ways in which the same queries can be computed, which change no bit of it.

use crate::world::{World, rows_of, shapes};
use crate::{Numbers, bits, isas};
use kernels::attention::{AttendArgs, AttendShape, Bias, Cache, PAGE, Row, distance_table, splits};
use kernels::{Cut, Ops};

/// Outputs on every set, cut in many ways, of rows together, alone, and split along the keys: all of the same bits.
fn same_everywhere(world: &World, args: &AttendArgs) -> Vec<f32> {
    let (shape, cols) = (world.shape, world.shape.heads * world.shape.dim);
    let all = world.attend(isas()[0], args, None, 1);
    assert!(all.iter().all(|x| x.is_finite()), "garbage reached an output");
    for ops in isas() {
        let group = shape.heads / shape.kv_heads;
        for (rows, heads, of) in [(1, 1, 3), (7, 1, 2), (64, 1, 1), (12, group, 2)] {
            let cut = Cut::Blocks { rows, cols: heads * shape.dim };
            let got = world.attend(ops, args, Some(cut), of);
            assert!(bits(&got) == bits(&all), "{shape:?} {} {cut:?} {of}", ops.name());
        }
        let n = args.rows.len();
        for r in [0, n / 3, n / 2, n - 1] {
            let alone = AttendArgs { rows: &args.rows[r..=r], ..*args };
            let want = bits(&all[r * cols..][..cols]);
            let got = world.attend(ops, &alone, None, 1);
            assert!(bits(&got) == want, "{shape:?} {} row {r} alone", ops.name());
            let got = world.attend_split(ops, &alone, 2);
            assert!(bits(&got) == want, "{shape:?} {} row {r} split", ops.name());
        }
        let few = AttendArgs { rows: &args.rows[..n.min(3)], ..*args };
        if splits(&shape, few.rows.len()) {
            let got = world.attend_split(ops, &few, 3);
            assert!(bits(&got) == bits(&all[..got.len()]), "{shape:?} {} split", ops.name());
        }
    }
    all
}

/// Against the specification, and however it is computed.
fn check(world: &World, args: &AttendArgs) {
    world.check(&same_everywhere(world, args), args);
}

/// Not all types of cache with every shape: what is new comes after the keys were read.
fn some_shapes() -> impl Iterator<Item = AttendShape> {
    shapes().filter(|shape| match shape.dim {
        64 => shape.cache == Cache::F16,
        48 => true,
        7 => shape.cache == Cache::Q8,
        256 => shape.cache == Cache::BF16,
        _ => shape.cache == Cache::F32,
    })
}

fn filled(shape: AttendShape, len: usize, seed: u64) -> (World, Vec<Row>) {
    let (mut world, rows) = (World::new(shape, &[len], seed), rows_of(0, 0..len));
    world.append(&rows);
    (world, rows)
}

#[test]
fn windows_reach_as_far_ahead_as_back_where_nothing_is_causal() {
    for shape in some_shapes() {
        let (world, rows) = filled(shape, 150, 21);
        for window in [1, 2, 67, 149, u32::MAX] {
            check(&world, &world.args(&rows, Some(window), false));
        }
        // A window of one sees itself alone: its own value, whatever the score.
        let args = world.args(&rows, Some(1), false);
        let (got, causal) = (
            world.attend(Ops::best(), &args, None, 1),
            world.attend(Ops::best(), &world.args(&rows, Some(1), true), None, 1),
        );
        assert_eq!(bits(&got), bits(&causal));
    }
}

#[test]
fn lengths_and_not_rows_say_what_is_seen() {
    // The last rows of a sequence whose other positions are in its pages already, as when a batch is cut.
    for shape in some_shapes() {
        let (world, all) = filled(shape, 140, 22);
        for window in [None, Some(30)] {
            let whole = world.attend(Ops::best(), &world.args(&all, window, false), None, 1);
            for rows in [&all[..5], &all[60..70], &all[133..]] {
                let got = world.attend(Ops::best(), &world.args(rows, window, false), None, 1);
                let from = rows[0].pos as usize * shape.heads * shape.dim;
                assert_eq!(bits(&got), bits(&whole[from..][..got.len()]), "{shape:?} {window:?}");
            }
        }
    }
}

#[test]
fn scores_are_capped() {
    for shape in some_shapes() {
        let (world, rows) = filled(shape, 100, 23);
        // Scores far below the cap, about it, and far beyond.
        for (cap, scale) in [(50.0, 0.1), (2.0, 0.3), (5.0, 3.0)] {
            for (window, causal) in [(None, true), (Some(33), false)] {
                let args = AttendArgs { cap: Some(cap), scale, ..world.args(&rows, window, causal) };
                check(&world, &args);
            }
        }
    }
}

#[test]
fn scores_beyond_all_bounds_become_the_cap() {
    let shape = AttendShape { heads: 1, kv_heads: 1, dim: 2, cache: Cache::F32 };
    for huge in [1e30, f32::MAX, f32::INFINITY] {
        let mut world = World::new(shape, &[100], 24);
        world.queries[0].fill(1.0);
        for (i, (k, v)) in world.keys[0].iter_mut().zip(&mut world.values[0]).enumerate() {
            let first = i < 2 * PAGE;
            (*k, *v) = (if first { huge } else { -huge }, f32::from(u8::from(first)));
        }
        let rows = rows_of(0, 0..100);
        world.append(&rows);
        let args = AttendArgs { cap: Some(1.5), ..world.args(&rows[99..], None, true) };
        // 64 positions at the cap, 36 at minus the cap.
        let want = 64.0 / (64.0 + 36.0 * f64::exp(-3.0));
        for ops in isas() {
            let got = world.attend(ops, &args, None, 1);
            assert!(got.iter().all(|x| (f64::from(*x) - want).abs() < 1e-6), "{huge}: {got:?}, not {want}");
        }
    }
}

/// Slopes as Press et al. choose them for a power of two, and odd ones.
pub(crate) fn slopes(heads: usize) -> Vec<f32> {
    (0..heads)
        .map(|h| 2f32.powf(-8.0 * (h + 1) as f32 / heads as f32) * if h % 3 == 2 { -0.37 } else { 1.0 })
        .collect()
}

/// Biases without symmetry, another for each head and distance.
pub(crate) fn table(heads: usize, far: usize) -> Vec<f32> {
    let mut numbers = Numbers::new(far as u64);
    let of = numbers.vec(heads * (2 * far + 1), 3.0);
    distance_table(heads, far, |h, distance| of[h * (2 * far + 1) + (distance + far as i64) as usize])
}

/// Biases of keys without symmetry, another for each head and position.
pub(crate) fn steps(heads: usize, len: usize) -> Vec<f32> {
    Numbers::new(len as u64).vec(heads * len, 3.0)
}

#[test]
fn scores_are_biased_by_distance_or_position() {
    for shape in some_shapes() {
        let (world, rows) = filled(shape, 150, 25);
        let some: Vec<Row> = rows.iter().copied().step_by(11).collect();
        let slopes = slopes(shape.heads);
        // Tables that end within a chunk, at its border, beyond it, beyond the text, and at once.
        let tables = [0, 1, 20, 63, 64, 100, 149, 400].map(|far| (far, table(shape.heads, far)));
        let steps = steps(shape.heads, 192);
        let by_key = Bias::Positions { table: &steps, len: 192 };
        let learned = tables.iter().map(|(far, table)| Bias::Distance { table, far: *far });
        for bias in [Bias::Slopes(&slopes), by_key].into_iter().chain(learned) {
            for (window, causal) in [(None, true), (None, false), (Some(50), false)] {
                let args = AttendArgs { bias, ..world.args(&some, window, causal) };
                let got = world.attend(Ops::best(), &args, None, 1);
                world.check(&got, &args);
            }
        }
        let (far, table) = &tables[2];
        for bias in [Bias::Slopes(&slopes), by_key, Bias::Distance { table, far: *far }] {
            for (window, causal, cap) in [(None, true, None), (Some(70), false, Some(4.0))] {
                check(&world, &AttendArgs { bias, cap, ..world.args(&rows, window, causal) });
            }
        }
    }
}

#[test]
fn long_texts_pass_both_ends_of_a_table() {
    let shape = AttendShape { heads: 2, kv_heads: 1, dim: 16, cache: Cache::F16 };
    let (world, all) = filled(shape, 2300, 26);
    let (far, slopes) = (128, slopes(2));
    let table = table(2, far);
    for rows in [&all[..4], &all[1100..1104], &all[2296..]] {
        for bias in [Bias::Slopes(&slopes), Bias::Distance { table: &table, far }] {
            for causal in [true, false] {
                check(&world, &AttendArgs { bias, cap: Some(30.0), ..world.args(rows, None, causal) });
            }
        }
    }
}

#[test]
fn a_bias_says_which_position_counts() {
    // All scores are equal but one distance is favoured beyond all others: its value is what comes out.
    let shape = AttendShape { heads: 2, kv_heads: 2, dim: 1, cache: Cache::F32 };
    let mut world = World::new(shape, &[200], 27);
    world.keys[0].fill(0.0);
    for (i, v) in world.values[0].iter_mut().enumerate() {
        *v = (i / 2) as f32;
    }
    let rows = rows_of(0, 0..200);
    world.append(&rows);
    let want = [-70i64, 3];
    let table = distance_table(2, 90, |h, distance| if distance == want[h] { 0.0 } else { -1000.0 });
    let bias = Bias::Distance { table: &table, far: 90 };
    for ops in isas() {
        let got = world.attend(ops, &AttendArgs { bias, ..world.args(&rows, None, false) }, None, 1);
        for (pos, h) in (80..190).flat_map(|pos| [(pos, 0), (pos, 1)]) {
            assert_eq!(f64::from(got[2 * pos + h]), pos as f64 + want[h] as f64, "head {h} at {pos}");
        }
    }
}

#[test]
fn a_table_repeats_its_ends() {
    let table = distance_table(2, 3, |h, distance| h as f32 * 100.0 + distance as f32);
    let row = 7 + 2 * (PAGE - 1);
    assert_eq!(table.len(), 2 * row);
    for (h, row) in table.chunks(row).enumerate() {
        let base = h as f32 * 100.0;
        assert!(row[..PAGE].iter().all(|x| *x == base - 3.0));
        assert_eq!(row[PAGE - 1..PAGE + 6], [-3., -2., -1., 0., 1., 2., 3.].map(|x| base + x));
        assert!(row[PAGE + 5..].iter().all(|x| *x == base + 3.0));
    }
}

/// Targets with `rows` rows each over sources of `lens`: of the targets only the queries exist.
pub(crate) fn crossed(shape: AttendShape, lens: &[usize], rows: &[usize]) -> World {
    let mut world = World::new(shape, lens, 28);
    for (seq, len) in lens.iter().enumerate() {
        world.append(&rows_of(seq as u32, 0..*len));
    }
    let width = shape.heads * shape.dim;
    let mut numbers = Numbers::new(29);
    world.queries = rows.iter().map(|rows| numbers.vec(rows * width, 1.5)).collect();
    world
}

#[test]
fn sources_may_be_shorter_or_longer_than_what_looks_at_them() {
    for shape in some_shapes() {
        let (lens, counts) = ([5, 200, 64, 1], [90, 3, 40, 70]);
        let world = crossed(shape, &lens, &counts);
        let rows: Vec<Row> =
            counts.iter().enumerate().flat_map(|(seq, n)| rows_of(seq as u32, 0..*n)).collect();
        check(&world, &world.args(&rows, None, false));
        // A decoder takes one step of each of some sequences.
        let step: Vec<Row> =
            counts.iter().enumerate().map(|(seq, n)| Row { seq: seq as u32, pos: *n as u32 - 1 }).collect();
        check(&world, &world.args(&step, None, false));
    }
}

#[test]
fn where_a_target_stands_does_not_matter_to_its_source() {
    let shape = AttendShape { heads: 4, kv_heads: 2, dim: 24, cache: Cache::F32 };
    let world = crossed(shape, &[100], &[10]);
    let rows = rows_of(0, 0..10);
    let q = world.gather(&world.queries, shape.heads, &rows);
    for ops in isas() {
        let want = world.attend(ops, &world.args(&rows, None, false), None, 1);
        for first in [90, 95, 5000] {
            let rows = rows_of(0, first..first + 10);
            let got = world.attend_by(ops, &world.args(&rows, None, false), &q, None, 1);
            assert_eq!(bits(&got), bits(&want), "from position {first} on");
        }
    }
}

#[test]
fn an_empty_source_gives_zeros() {
    let shape = AttendShape { heads: 2, kv_heads: 1, dim: 16, cache: Cache::F32 };
    let world = crossed(shape, &[0, 70], &[3, 3]);
    let rows = [rows_of(0, 0..3), rows_of(1, 0..3)].concat();
    for ops in isas() {
        let args = world.args(&rows, None, false);
        for got in [world.attend(ops, &args, None, 2), world.attend_split(ops, &args, 2)] {
            assert!(got[..96].iter().all(|x| *x == 0.0) && got[96..].iter().all(|x| x.is_finite()));
            world.check(&got[96..], &AttendArgs { rows: &rows[3..], ..args });
        }
    }
}
