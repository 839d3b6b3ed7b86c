//! How fast attention is, as the engine runs it: `attention_speed [key=value]...`, one line of JSON a case.
//!
//! `heads` and `kv`, `dim`, `len`, `mode` (`causal`: all positions after nothing; `full`: the same without a mask; `one`:
//! a single query at the last position), `cache` (`f32`, `f16`, `bf16`, `q8`), `threads`, `isa` and `ms` (how long to
//! measure) may be given as lists `a,b,c`; every combination is a case. `seconds` are of the median
//! call, `least` of the fastest; `gflops` count what the mask leaves, and `peak` is what the team reaches at best.

use kernels::attention::{
    AttendArgs, AttendShape, Bias, Cache, PAGE, Row, append, cut, head_words, merge_cut, part_words, parts,
    scratch_words, splits,
};
use kernels::linear::Pack;
use kernels::peak::peak_flops;
use kernels::{Access, Isa, Mems, Ops, Pages, Plan, Span, StateMut, Team};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

const KEYS: [(&str, &str); 9] = [
    ("heads", "9"),
    ("kv", "3"),
    ("dim", "64"),
    ("len", "512,2048"),
    ("mode", "causal,one"),
    ("cache", "f32,f16,bf16,q8"),
    ("threads", "1"),
    ("isa", ""),
    ("ms", "200"),
];

fn main() {
    let mut values = KEYS.map(|(_, default)| default.to_owned());
    for arg in std::env::args().skip(1) {
        let (key, value) = arg.split_once('=').expect("key=value");
        let at = KEYS.iter().position(|(known, _)| *known == key).expect("a key of those named at the top");
        values[at] = value.to_owned();
    }
    run(&values, &mut Vec::new());
}

/// Every combination of the values not yet chosen.
fn run(values: &[String], chosen: &mut Vec<String>) {
    if let Some(value) = values.get(chosen.len()) {
        for value in value.split(',') {
            chosen.push(value.to_owned());
            run(values, chosen);
            chosen.pop();
        }
        return;
    }
    let number = |i: usize| chosen[i].parse::<usize>().expect("a number");
    let shape =
        AttendShape { heads: number(0), kv_heads: number(1), dim: number(2), cache: cache(&chosen[5]) };
    let isa = Some(chosen[7].as_str()).filter(|name| !name.is_empty());
    let isa: Option<Isa> = isa.map(|name| name.parse().expect("an instruction set"));
    let ops = Ops::from_env_or(isa).expect("an instruction set of this machine");
    let case = Case { ops, shape, len: number(3), one: chosen[4] == "one", causal: chosen[4] != "full" };
    let team = Team::new(number(6)).expect("threads");
    let (seconds, flops, memory) = case.measure(&team, Duration::from_millis(number(8) as u64));
    let peak = peak_flops(&team, Pack::F32, 20) / 1e9;
    let names = KEYS[..7].iter().zip(&chosen[..]).map(|((key, _), value)| {
        if value.parse::<usize>().is_ok() {
            format!("\"{key}\": {value}")
        } else {
            format!("\"{key}\": \"{value}\"")
        }
    });
    println!(
        "{{{}, \"isa\": \"{}\", \"seconds\": {:e}, \"least\": {:e}, \"gflops\": {:.2}, \
         \"peak\": {peak:.2}, \"memory_bytes\": {memory}}}",
        names.collect::<Vec<_>>().join(", "),
        ops.name(),
        seconds[seconds.len() / 2],
        seconds[0],
        flops / seconds[seconds.len() / 2] / 1e9,
    );
}

fn cache(name: &str) -> Cache {
    Cache::ALL.into_iter().find(|cache| cache.name().to_lowercase() == name).expect("a type of cache")
}

struct Case {
    ops: &'static Ops,
    shape: AttendShape,
    len: usize,
    one: bool,
    causal: bool,
}

impl Case {
    /// Seconds of each run, sorted; multiplications and additions of one; bytes beside q, keys, values and outputs.
    fn measure(&self, team: &Team, time: Duration) -> (Vec<f64>, f64, usize) {
        let shape = self.shape;
        let words = head_words(shape.dim, shape.cache);
        let mut pages = Pages::new(1, shape.kv_heads * words);
        let table: Vec<u32> = (0..self.len.div_ceil(PAGE)).filter_map(|_| pages.alloc()).collect();
        let all: Vec<Row> = (0..self.len).map(|pos| Row { seq: 0, pos: pos as u32 }).collect();
        let lens = [self.len as u32];
        let args = |rows| AttendArgs {
            shape,
            scale: 1.0 / (shape.dim as f32).sqrt(),
            cap: None,
            bias: Bias::None,
            window: None,
            causal: self.causal,
            rows,
            pages: &table,
            seqs: &[0],
            lens: &lens,
        };
        let kv = noise(self.len * shape.kv_heads * shape.dim, 1);
        append(&mut StateMut::whole(&mut pages, 0, words), &kv, &kv, &args(&all));

        let rows = if self.one { &all[self.len - 1..] } else { &all[..] };
        let (n, cols) = (rows.len(), shape.heads * shape.dim);
        let split = splits(&shape, n);
        let part = [if split { parts(self.len) * n } else { 0 }, shape.heads * part_words(shape.dim)];
        let span = |mem, rows, cols| Span { mem, at: 0, rows, cols };
        let (q, out, kept) = (span(0, n, cols), span(1, n, cols), span(2, part[0], part[1]));
        let to = if split { kept } else { out };
        let scratch = scratch_words(&shape);
        let attend = vec![
            Access::Read(q),
            Access::ReadState(0),
            Access::Deal(to, cut(&shape, n, split)),
            Access::Scratch(scratch),
        ];
        let merge = vec![Access::Read(kept), Access::Write(out, merge_cut(&shape))];
        let tasks = if split { vec![attend, merge] } else { vec![attend] };
        let plan = Plan::new(tasks, vec![n * cols, n * cols, part[0] * part[1]]).expect("a plan");
        let mut mems = [noise(n * cols, 2), vec![0.0; n * cols], vec![0.0; part[0] * part[1]]];
        let mut scratch = vec![0.0; plan.scratch_words(team.size())];
        let memory = 4 * (part[0] * part[1] + scratch.len());

        let args = args(rows);
        let (mut seconds, begin, never) = (Vec::new(), Instant::now(), AtomicBool::new(false));
        while seconds.len() < 3 || begin.elapsed() < time {
            let start = Instant::now();
            let [a, b, c] = &mut mems;
            let mems = Mems { mems: &mut [a, b, c], pages: &mut pages, scratch: &mut scratch };
            let work = |i: usize, mut part: kernels::Part| {
                if i == 1 {
                    let from = part.read(kept);
                    return (self.ops.merge)(&mut part.write(out), from, &args);
                }
                let (q, state, scratch) = (part.read(q), part.state(0), part.scratch());
                for mut out in part.pieces(to) {
                    (self.ops.attend)(&mut out, q, &state, &args, split, scratch);
                }
            };
            plan.run(team, mems, &never, &work).expect("a run");
            seconds.push(start.elapsed().as_secs_f64());
        }
        seconds.sort_by(f64::total_cmp);
        let seen = |row: &Row| if self.causal { row.pos as usize + 1 } else { self.len };
        let flops = rows.iter().map(|row| seen(row) as f64 * 4.0 * cols as f64).sum();
        (seconds, flops, memory)
    }
}

/// Numbers around zero with the variance of a normal distribution.
fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u32 << 24) as f32
    };
    (0..n).map(|_| (next() + next() + next() - 1.5) * 2.0).collect()
}
