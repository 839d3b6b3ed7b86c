//! Bad tasks are refused, short memory is refused, a panic or a cancel leaves the team usable.

use super::*;

fn span(at: usize, rows: usize, cols: usize) -> Span {
    Span { mem: 0, at, rows, cols }
}

#[test]
fn barriers_go_where_tasks_meet() {
    let (a, b, c) = (span(0, 1, 8), span(8, 1, 8), span(16, 1, 8));
    let write = |s| Access::Write(s, Cut::Cols(1));
    let tasks = vec![
        vec![write(a), Access::WriteState(0, 4)],
        vec![write(b), Access::WriteState(1, 4)],
        vec![Access::Read(a), Access::Read(b), write(c)],
        vec![Access::ReadState(0)],
        vec![Access::WriteState(0, 4), write(a)],
    ];
    let plan = Plan::new(tasks, vec![24]).unwrap();
    assert_eq!(plan.stages(), [0..2, 2..4, 4..5]);
}

#[test]
fn bad_tasks_are_refused() {
    let a = span(0, 1, 8);
    let write = Access::Write(a, Cut::Pieces(8));
    assert_eq!(Plan::new(vec![vec![write]], vec![7]).err(), Some(Failed::Bounds(0)));
    assert_eq!(
        Plan::new(vec![vec![Access::Read(span(7, 1, 8)), write]], vec![64]).err(),
        Some(Failed::Overlap(0))
    );
    let both = vec![Access::ReadState(1), Access::WriteState(1, 8)];
    assert_eq!(Plan::new(vec![both], vec![]).err(), Some(Failed::Overlap(0)));
    let [one, other] = [a, span(8, 1, 8)].map(|s| Access::Deal(s, Cut::Cols(4)));
    assert_eq!(Plan::new(vec![vec![one, other]], vec![16]).err(), Some(Failed::Overlap(0)), "one count");
    assert!(Plan::new(vec![vec![one], vec![other]], vec![16]).is_ok());
    let rows = Access::Deal(a, Cut::Pieces(8));
    assert_eq!(Plan::new(vec![vec![rows]], vec![8]).err(), Some(Failed::Overlap(0)), "rows are not dealt");
    let huge = Span { mem: 0, at: usize::MAX, rows: 2, cols: usize::MAX };
    assert_eq!(Plan::new(vec![vec![Access::Read(huge)]], vec![64]).err(), Some(Failed::Bounds(0)));
}

#[test]
fn a_run_that_lacks_memory_is_refused() {
    let (team, go) = (Team::new(1).unwrap(), AtomicBool::new(false));
    let task = vec![Access::Write(span(0, 2, 4), Cut::Pieces(4)), Access::Scratch(10), Access::ReadState(0)];
    let plan = Plan::new(vec![task], vec![8]).unwrap();
    let run = |mem: usize, layers: usize, scratch: usize| {
        let (mut mem, mut pages, mut scratch) = (vec![0.0; mem], Pages::new(layers, 4), vec![0.0; scratch]);
        plan.run(
            &team,
            Mems { mems: &mut [&mut mem], pages: &mut pages, scratch: &mut scratch },
            &go,
            &|_, _| (),
        )
    };
    assert_eq!(run(7, 1, 32), Err(Failed::Memory(0)));
    assert_eq!(run(8, 1, 31), Err(Failed::Memory(MAX_MEMS)));
    assert_eq!(run(8, 0, 32), Err(Failed::Memory(MAX_MEMS + 1)));
    assert_eq!(run(8, 1, 32), Ok(()));
}

#[test]
fn a_panic_or_a_cancel_leaves_the_team_usable() {
    let (team, mut pages) = (Team::new(2).unwrap(), Pages::new(0, 0));
    let a = span(0, 2, 4);
    let plan = Plan::new(vec![vec![Access::Write(a, Cut::Pieces(4))]], vec![8]).unwrap();
    let mut mem = vec![0.0; 8];
    let go = AtomicBool::new(false);
    let mut run = |work: &(dyn Fn(usize, Part) + Sync)| {
        plan.run(&team, Mems { mems: &mut [&mut mem], pages: &mut pages, scratch: &mut [] }, &go, work)
    };
    assert_eq!(run(&|_, part| assert_ne!(part.worker, 1)), Err(Failed::Panicked));
    let done = run(&|_, mut part| {
        let mut tile = part.write(a);
        for r in tile.rows() {
            tile.row(r).fill(1.0 + r as f32);
        }
    });
    assert_eq!(done, Ok(()));
    go.store(true, Relaxed);
    assert_eq!(run(&|_, _| ()), Err(Failed::Cancelled));
    assert_eq!(mem, [1., 1., 1., 1., 2., 2., 2., 2.]);
}

#[test]
fn pieces_are_every_column_once_whoever_comes_first() {
    let shapes = [(1, 1, 999), (2, 1, 999), (2, 8, 512), (3, 2, 777), (7, 1, 1793), (2, 9, 999), (3, 1, 40)];
    for (workers, rows, cols) in shapes {
        let (team, mut pages, go) = (Team::new(workers).unwrap(), Pages::new(0, 0), AtomicBool::new(false));
        // Several stages, so that counts are used again.
        let (a, stages) = (span(0, rows, cols), 5);
        let plan = Plan::new(vec![vec![Access::Deal(a, Cut::Cols(32))]; stages], vec![rows * cols]).unwrap();
        assert_eq!(plan.stages().len(), stages);
        let mut mem = vec![0.0; rows * cols];
        let mems = Mems { mems: &mut [&mut mem], pages: &mut pages, scratch: &mut [] };
        let done = plan.run(&team, mems, &go, &|i, mut part| {
            for (n, mut tile) in part.pieces(a).enumerate() {
                assert_eq!(tile.cols().start % 32, 0);
                for r in tile.rows() {
                    tile.row(r).iter_mut().for_each(|x| *x += 1.0);
                }
                if n == 0 && i % workers == 0 {
                    std::thread::sleep(std::time::Duration::from_micros(200));
                }
            }
        });
        assert_eq!(done, Ok(()));
        assert!(mem.iter().all(|x| *x == stages as f32), "{workers} workers, {rows} x {cols}");
    }
}

#[test]
fn pieces_are_taken_once_and_only_of_what_is_dealt() {
    let (team, mut pages, go) = (Team::new(1).unwrap(), Pages::new(0, 0), AtomicBool::new(false));
    let (a, b) = (span(0, 1, 64), span(64, 1, 64));
    let task = vec![Access::Deal(a, Cut::Cols(32)), Access::Write(b, Cut::Cols(32))];
    let plan = Plan::new(vec![task], vec![128]).unwrap();
    let mut mem = vec![0.0; 128];
    let wrong: [&(dyn Fn(&mut Part) + Sync); 3] = [
        &|part| {
            part.pieces(a);
            part.pieces(a);
        },
        &|part| _ = part.write(a),
        &|part| _ = part.pieces(b),
    ];
    for wrong in wrong {
        let mems = Mems { mems: &mut [&mut mem], pages: &mut pages, scratch: &mut [] };
        assert_eq!(plan.run(&team, mems, &go, &|_, mut part| wrong(&mut part)), Err(Failed::Panicked));
    }
}

#[test]
fn blocks_are_dealt_once_whoever_comes_first() {
    for (workers, rows, cols) in [(1, 7, 9), (2, 7, 9), (2, 40, 12), (3, 60, 24), (2, 1, 4), (5, 8, 100)] {
        let (team, mut pages, go) = (Team::new(workers).unwrap(), Pages::new(0, 0), AtomicBool::new(false));
        let (a, cut) = (span(0, rows, cols), Cut::Blocks { rows: 3, cols: 4 });
        let plan = Plan::new(vec![vec![Access::Deal(a, cut)]; 3], vec![rows * cols]).unwrap();
        let mut mem = vec![0.0; rows * cols];
        let mems = Mems { mems: &mut [&mut mem], pages: &mut pages, scratch: &mut [] };
        let done = plan.run(&team, mems, &go, &|_, mut part| {
            for mut tile in part.pieces(a) {
                for cell in tile.cells() {
                    let rows = cell.rows.clone();
                    rows.for_each(|r| tile.cell_row(&cell, r).iter_mut().for_each(|x| *x += 1.0));
                }
                std::thread::sleep(std::time::Duration::from_micros(50 * part_number(workers)));
            }
        });
        assert_eq!(done, Ok(()));
        assert!(mem.iter().all(|x| *x == 3.0), "{workers} workers, {rows} x {cols}");
    }
}

/// Something else for each call, so that workers take different numbers of pieces.
fn part_number(of: usize) -> u64 {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    (CALLS.fetch_add(1, Relaxed) % of) as u64
}
