//! A `tokenizer.json`: whatever is accepted encodes and decodes without a panic. The library catches those of the crate it
//! stands on, so only what gets past it, and sanitizers, are found here.
#![no_main]

use inlaid::tokenizer::{Decoder, Tokenizer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(tokenizer) = Tokenizer::from_bytes(bytes, None) else { return };
    for text in ["", "Hello, wörld! 12345  \n\t🙂", "<s>a</s>"] {
        let Ok(ids) = tokenizer.encode(text, true, true) else { continue };
        let whole = tokenizer.decode(&ids, false);
        let mut decoder = Decoder::new(&tokenizer, false);
        let mut streamed = String::new();
        for id in &ids {
            streamed.push_str(decoder.push(*id));
        }
        streamed.push_str(decoder.flush());
        if let Ok(whole) = whole {
            assert_eq!(whole, streamed);
        }
    }
});
