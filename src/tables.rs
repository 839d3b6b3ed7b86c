//! Floor 4: the tables of one call: rows, their tokens and positions, and the pages that they see. Knows no maths.

use crate::graft::Grafted;
use crate::state::{Sequence, pages_for};
use kernels::attention::Row;

/// What changes from call to call: the verbs read it, the program does not know it.
#[derive(Default)]
pub struct Tables {
    /// Token of each row.
    pub ids: Vec<u32>,
    /// Type of each row's token.
    pub types: Vec<u32>,
    /// Position of each row.
    pub positions: Vec<u32>,
    /// Row of the table of positions of each row.
    pub places: Vec<u32>,
    /// Sequence and position of each row.
    pub rows: Vec<Row>,
    /// Page numbers of all sequences, one after the other.
    pub pages: Vec<u32>,
    /// Where each sequence begins in `pages`.
    pub seqs: Vec<u32>,
    /// Positions of each sequence, those of this call among them.
    pub lens: Vec<u32>,
    /// First row of each sequence, and the end of the last.
    pub starts: Vec<u32>,
    /// The same as `pages`, `seqs` and `lens` for what each sequence's decoder attends to.
    pub source_pages: Vec<u32>,
    /// See `source_pages`.
    pub source_seqs: Vec<u32>,
    /// See `source_pages`.
    pub source_lens: Vec<u32>,
    /// Where gradients are wanted, the same as `starts` for the rows of all sources.
    pub source_starts: Vec<u32>,
    /// `[rows, 2, rot_dim / 2]`: cosines and sines, of all blocks or of those with a window.
    pub turns: [Vec<f32>; 2],
    /// Rows whose logits are wanted.
    pub picks: Vec<u32>,
    /// Per picked row, the token whose log-probability is wanted.
    pub targets: Vec<u32>,
    /// Per picked row, the derivatives of a loss: see `Runner::run_back`.
    #[cfg_attr(not(feature = "train"), expect(dead_code))]
    pub seeds: Vec<f32>,
    /// The same by what the value head said.
    #[cfg_attr(not(feature = "train"), expect(dead_code))]
    pub value_seeds: Vec<f32>,
    /// Rows that have adapters, in order.
    pub grafted: Vec<Grafted>,
    /// Pages that the sequences, and their sources, may come to hold.
    room: [usize; 2],
}

impl Tables {
    /// Forgets the last call, keeps the memory.
    pub fn clear(&mut self) {
        for table in [
            &mut self.ids,
            &mut self.types,
            &mut self.positions,
            &mut self.places,
            &mut self.pages,
            &mut self.seqs,
            &mut self.lens,
            &mut self.starts,
            &mut self.source_pages,
            &mut self.source_seqs,
            &mut self.source_lens,
            &mut self.source_starts,
            &mut self.picks,
            &mut self.targets,
        ] {
            table.clear();
        }
        self.rows.clear();
        self.grafted.clear();
        self.turns.iter_mut().for_each(Vec::clear);
        self.room = [0; 2];
    }

    /// Adds `ids` as the next positions of `seq`, whose pages already reach that far. `types` may be shorter: the rest is 0.
    pub fn feed(&mut self, seq: &Sequence, ids: &[u32], types: &[u32]) {
        let number = self.seqs.len() as u32;
        self.starts.pop();
        self.starts.push(self.ids.len() as u32);
        let held = seq.lead + seq.len;
        self.lens.push((held + ids.len()) as u32);
        let (pages, seqs) = (&mut self.pages, &mut self.seqs);
        list(pages, seqs, &mut self.room[0], seq);
        for (i, &id) in ids.iter().enumerate() {
            let pos = (held + i) as u32;
            self.ids.push(id);
            self.types.push(types.get(i).copied().unwrap_or(0));
            self.positions.push(pos);
            self.rows.push(Row { seq: number, pos });
        }
        self.starts.push(self.ids.len() as u32);
    }

    /// Finds each row's row of the table of positions; `pad` takes the one before `offset` and counts for none.
    pub fn place(&mut self, offset: u32, pad: Option<u32>) {
        let mut skipped = 0;
        for (row, (id, pos)) in self.ids.iter().zip(&self.positions).enumerate() {
            if row == 0 || self.rows[row].seq != self.rows[row - 1].seq {
                skipped = 0;
            }
            let is_pad = pad == Some(*id);
            self.places.push(if is_pad { offset - 1 } else { offset + pos - skipped });
            skipped += u32::from(is_pad);
        }
    }

    /// Finds where the rows of each source begin among those of all, whole sources one after the other.
    pub fn place_sources(&mut self) {
        let (mut end, starts) = (0, &mut self.source_starts);
        starts.push(end);
        starts.extend(self.source_lens.iter().map(|len| {
            end += len;
            end
        }));
    }

    /// What the decoder of the sequence that was just added attends to.
    pub fn source(&mut self, source: &Sequence) {
        self.source_lens.push((source.lead + source.len) as u32);
        let (pages, seqs) = (&mut self.source_pages, &mut self.source_seqs);
        list(pages, seqs, &mut self.room[1], source);
    }
}

/// Adds the pages of a sequence.
fn list(pages: &mut Vec<u32>, seqs: &mut Vec<u32>, room: &mut usize, seq: &Sequence) {
    seqs.push(pages.len() as u32);
    // For whole contexts at once: a step that begins a page allocates nothing.
    *room += pages_for(seq.limit);
    pages.reserve(room.saturating_sub(pages.len()));
    pages.extend_from_slice(&seq.pages);
}
