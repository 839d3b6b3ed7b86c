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
