//! Floor 0: page memory of the keys and values of all conversations, and the checked views kernels get of it. Knows
//! nothing of who holds a page; its owner counts.

use crate::words::Words;
use std::marker::PhantomData;
use std::ops::Range;

/// Pages of `layers * layer_words` f32 words each, numbered from 0; a number may be free.
pub struct Pages {
    mem: Vec<Option<Words>>,
    free: Vec<u32>,
    layers: usize,
    layer_words: usize,
}

impl Pages {
    /// No pages yet. A page will hold `layer_words` words for each of `layers` layers.
    #[must_use]
    pub fn new(layers: usize, layer_words: usize) -> Pages {
        Pages { mem: Vec::new(), free: Vec::new(), layers, layer_words }
    }

    /// Bytes of one page.
    #[must_use]
    pub fn page_bytes(&self) -> usize {
        self.layers * self.layer_words * 4
    }

    /// Pages that exist now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.mem.len() - self.free.len()
    }

    /// Whether no page exists.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A zeroed page; `None` where the system has no memory for it.
    pub fn alloc(&mut self) -> Option<u32> {
        let words = Words::zeroed(self.layers.checked_mul(self.layer_words)?)?;
        if let Some(id) = self.free.pop() {
            self.mem[id as usize] = Some(words);
            return Some(id);
        }
        let id = u32::try_from(self.mem.len()).ok()?;
        self.mem.try_reserve(1).ok()?;
        // `release` must not allocate: the list of free numbers has room for all of them.
        self.free.try_reserve(self.mem.len() + 1 - self.free.len()).ok()?;
        self.mem.push(Some(words));
        Some(id)
    }

    /// Gives a page's memory back to the system.
    pub fn release(&mut self, id: u32) {
        if let Some(slot) = self.mem.get_mut(id as usize)
            && slot.take().is_some()
        {
            self.free.push(id);
        }
    }

    /// Copies all layers of page `from` over page `to`. Panics where either is free.
    pub fn copy(&mut self, from: u32, to: u32) {
        let [Some(from), Some(to)] = [from, to].map(|id| self.mem[id as usize].as_ref().map(Words::as_ptr))
        else {
            panic!("copy of a page that is free");
        };
        if from != to {
            // SAFETY: two different pages of this size, and `&mut self` is the only access to either.
            unsafe { std::ptr::copy_nonoverlapping(from, to, self.layers * self.layer_words) }
        }
    }

    /// All words of a page, layer after layer.
    #[must_use]
    pub fn words(&self, id: u32) -> Option<&[f32]> {
        self.mem.get(id as usize)?.as_deref()
    }

    /// All words of a page, to be written.
    pub fn words_mut(&mut self, id: u32) -> Option<&mut [f32]> {
        self.mem.get_mut(id as usize)?.as_deref_mut()
    }

    pub(crate) fn layers(&self) -> usize {
        self.layers
    }
    pub(crate) fn layer_words(&self) -> usize {
        self.layer_words
    }

    /// Where layer `layer` of page `id` lies. Panics where there is none.
    fn at(&self, id: u32, layer: usize) -> *mut f32 {
        let page = self.mem[id as usize].as_ref().expect("a page that is free");
        assert!(layer < self.layers, "layer {layer} of {}", self.layers);
        // SAFETY: in bounds: the page holds `layers * layer_words` words.
        unsafe { page.as_ptr().add(layer * self.layer_words) }
    }
}

/// One layer of all pages, to be read.
#[derive(Clone, Copy)]
pub struct StateRef<'a> {
    pages: &'a Pages,
    layer: usize,
}

impl<'a> StateRef<'a> {
    /// # Safety
    /// Nobody writes this layer's words while the view lives.
    pub(crate) unsafe fn new(pages: &'a Pages, layer: usize) -> StateRef<'a> {
        StateRef { pages, layer }
    }

    /// A view outside a plan; the borrow keeps writers out.
    #[must_use]
    pub fn whole(pages: &'a Pages, layer: usize) -> StateRef<'a> {
        StateRef { pages, layer }
    }

    /// This layer's words of page `id`. Panics where the page is free.
    #[must_use]
    pub fn page(&self, id: u32) -> &'a [f32] {
        // SAFETY: in bounds by `at`; nobody writes (see `new`, `whole`).
        unsafe { std::slice::from_raw_parts(self.pages.at(id, self.layer), self.pages.layer_words) }
    }
}

/// One layer of all pages, of which one worker may write its own heads.
pub struct StateMut<'a> {
    pages: &'a Pages,
    layer: usize,
    head_words: usize,
    heads: Range<usize>,
    life: PhantomData<&'a mut [f32]>,
}

impl<'a> StateMut<'a> {
    /// # Safety
    /// Nobody else reads or writes these heads of this layer while the view lives.
    pub(crate) unsafe fn new(
        pages: &'a Pages,
        layer: usize,
        head_words: usize,
        heads: Range<usize>,
    ) -> StateMut<'a> {
        assert!(heads.end * head_words <= pages.layer_words, "heads beyond the page");
        StateMut { pages, layer, head_words, heads, life: PhantomData }
    }

    /// All heads, outside a plan.
    #[must_use]
    pub fn whole(pages: &'a mut Pages, layer: usize, head_words: usize) -> StateMut<'a> {
        let heads = 0..pages.layer_words / head_words.max(1);
        StateMut { pages, layer, head_words, heads, life: PhantomData }
    }

    /// The heads this worker may write.
    #[must_use]
    pub fn heads(&self) -> Range<usize> {
        self.heads.clone()
    }

    /// This worker's heads of page `id`: `[heads, head_words]`. Panics where the page is free.
    pub fn page(&mut self, id: u32) -> &mut [f32] {
        let (at, words) = (self.heads.start * self.head_words, self.heads.len() * self.head_words);
        // SAFETY: in bounds by `at` and `new`; the heads are this view's alone, and `&mut self` lends one at a time.
        unsafe { std::slice::from_raw_parts_mut(self.pages.at(id, self.layer).add(at), words) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_come_zeroed_and_go_back() {
        let mut pages = Pages::new(2, 8);
        let (a, b) = (pages.alloc().unwrap(), pages.alloc().unwrap());
        StateMut::whole(&mut pages, 1, 4).page(a).fill(3.0);
        pages.copy(a, b);
        assert_eq!(StateRef::whole(&pages, 0).page(b), [0.0; 8]);
        assert_eq!(StateRef::whole(&pages, 1).page(b), [3.0; 8]);
        pages.release(a);
        pages.release(a);
        assert_eq!(pages.len(), 1);
        assert_eq!(pages.alloc(), Some(a));
        assert_eq!(pages.words(a), Some(&[0.0; 16][..]));
    }

    #[test]
    fn an_absurd_page_is_refused() {
        assert_eq!(Pages::new(usize::MAX, 2).alloc(), None);
        assert_eq!(Pages::new(1 << 30, 1 << 30).alloc(), None);
    }
}
