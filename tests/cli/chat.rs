//! `inlaid chat` and Ctrl-C: it stops an answer and not the program; at the prompt, twice, the program.
#![cfg(unix)]

use crate::common::write_model;
use crate::inlaid;
use inlaid::kernels::DType;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A model that never ends an answer by itself, and takes a second at least for four thousand tokens.
fn model() -> TempDir {
    let dir = write_model(
        r#"{"model_type": "llama", "num_hidden_layers": 3, "hidden_size": 256, "num_attention_heads": 4,
        "intermediate_size": 768, "vocab_size": 4096, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": true}"#,
        DType::F32,
    );
    let demo = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/tokenizer.json");
    std::fs::copy(demo, dir.path().join("tokenizer.json")).unwrap();
    let template = r#"{"chat_template": "{% for m in messages %}{{ m.content }}\n{% endfor %}"}"#;
    std::fs::write(dir.path().join("tokenizer_config.json"), template).unwrap();
    dir
}

/// What a stream has brought so far.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<u8>>>);

impl Heard {
    fn of(mut stream: impl Read + Send + 'static) -> Heard {
        let heard = Heard::default();
        let into = heard.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = stream.read(&mut bytes) {
                into.0.lock().unwrap().extend_from_slice(&bytes[..n]);
            }
        });
        heard
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    /// Waits until the text is as it should be: far longer than any machine needs.
    fn until(&self, what: &str, done: impl Fn(&str) -> bool) {
        let start = Instant::now();
        while !done(&self.text()) {
            assert!(start.elapsed() < Duration::from_secs(60), "{what}: heard {:?}", self.text());
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

struct Chat {
    child: Child,
    /// Until the chat is told that there is no more.
    says: Option<ChildStdin>,
    /// Both streams in the order in which they were written.
    heard: Heard,
}

impl Chat {
    fn new(model: &TempDir) -> Chat {
        let args =
            ["chat", model.path().to_str().unwrap(), "-n", "4000", "--isa", "scalar", "--threads", "1"];
        let (both, end) = std::io::pipe().unwrap();
        let mut command = inlaid(&args);
        command.stdin(Stdio::piped()).stdout(end.try_clone().unwrap()).stderr(end);
        let mut child = command.spawn().unwrap();
        Chat { says: child.stdin.take(), heard: Heard::of(both), child }
    }

    fn say(&mut self, line: &str) {
        writeln!(self.says.as_ref().unwrap(), "{line}").unwrap();
    }

    /// What the terminal sends for Ctrl-C.
    fn interrupt(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    }

    /// How it ends by itself.
    fn status(&mut self) -> Option<i32> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            if start.elapsed() > Duration::from_secs(60) {
                self.child.kill().unwrap();
                panic!("it does not end: {:?}", self.heard.text());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

#[test]
fn an_interrupt_stops_an_answer_and_not_the_chat() {
    let model = model();
    let mut chat = Chat::new(&model);
    for turn in 1..=2 {
        let before = chat.heard.text().len();
        chat.say("Go on");
        chat.heard.until("an answer begins", |text| text.len() > before);
        chat.interrupt();
        // On a line of its own, whatever the answer ended with.
        let ended = |text: &str| text.matches("\n[cancelled: ").count() == turn && text.ends_with("]\n");
        chat.heard.until("the answer was cancelled", ended);
    }
    chat.say("/stats");
    chat.heard.until("it still listens", |text| text.contains("tokens held"));
    chat.says = None;
    assert_eq!(chat.status(), Some(0));
}

#[test]
fn two_interrupts_at_the_prompt_end_the_chat() {
    let model = model();
    let mut chat = Chat::new(&model);
    chat.say("/stats");
    chat.heard.until("it listens", |text| text.contains("tokens held"));
    chat.interrupt();
    chat.heard.until("it says how to end", |text| text.contains("Ctrl-C again"));
    chat.interrupt();
    assert_eq!(chat.status(), Some(130));
}
