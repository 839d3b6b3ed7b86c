//! Valid model files, however they are handed over, and how a config is asked.

use inlaid::Error;
use inlaid::format::config::Config;
use inlaid::format::files::Load;
use inlaid::format::files::{Files, INDEX, Layout, Part, SINGLE};
use inlaid::format::generation::GenerationConfig;
use inlaid::format::source::{Reading, Source};
use inlaid::format::tensors::Tensors;
use safetensors_reference::tensor::{Dtype, TensorView};
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

type Stored = (&'static str, Dtype, Vec<usize>, Vec<u8>);

fn tensors() -> Vec<Stored> {
    let bytes = |n: u8| (0..n).collect::<Vec<u8>>();
    vec![
        ("model.embed_tokens.weight", Dtype::BF16, vec![3, 5], bytes(30)),
        ("model.norm.weight", Dtype::F32, vec![5], bytes(20)),
        ("h.0.attn.bias", Dtype::BOOL, vec![1, 1, 3], bytes(3)),
        ("empty", Dtype::F16, vec![0, 4], vec![]),
        ("scalar", Dtype::F16, vec![], bytes(2)),
    ]
}

/// A file as the format's own library writes it.
fn file(tensors: &[Stored]) -> Vec<u8> {
    let view = |t: &Stored| {
        (t.0, TensorView::new(t.1, t.2.clone(), Box::leak(t.3.clone().into_boxed_slice())).unwrap())
    };
    safetensors_reference::serialize(tensors.iter().map(view), None).unwrap()
}

fn check(found: &Tensors, expected: &[Stored]) {
    assert_eq!(found.names().count(), expected.len());
    for (name, dtype, shape, bytes) in expected {
        if *dtype == Dtype::BOOL {
            assert!(found.get(name).unwrap_err().to_string().contains("found BOOL"));
            continue;
        }
        let tensor = found.get(name).unwrap().unwrap_or_else(|| panic!("{name} is missing"));
        assert_eq!(tensor.dtype().name(), dtype.to_string());
        assert_eq!(tensor.shape(), shape);
        assert_eq!(tensor.bytes(), bytes);
    }
}

fn write(dir: &Path, files: &[(&str, &[u8])]) {
    for (name, bytes) in files {
        fs::write(dir.join(name), bytes).unwrap();
    }
}

#[test]
fn a_copy_of_nothing_is_nothing() {
    let file = tempfile::tempfile().unwrap();
    let mapped = Source::map("empty", &file, 0, None).unwrap();
    let copied = Source::read("empty", &file, 0, None, &mut Reading::quiet(Load::Copy)).unwrap();
    for source in [mapped, copied] {
        assert!(source.bytes().is_empty() && source.private_bytes() == 0, "{source:?}");
    }
}

#[test]
fn reads_what_the_reference_library_writes_from_every_place() {
    let (list, dir) = (tensors(), tempfile::tempdir().unwrap());
    let bytes = file(&list);
    write(dir.path(), &[(SINGLE, &bytes), ("other.safetensors", &bytes)]);
    let padded = [b"ahead".as_slice(), &bytes, b"behind"].concat();
    write(dir.path(), &[("padded", &padded)]);

    let open = |files: &Files, load| files.tensors(load, &mut None).unwrap();
    for path in [dir.path().to_owned(), dir.path().join("other.safetensors")] {
        let files = Files::at(path).unwrap();
        let mapped = open(&files, Load::Map);
        assert!(mapped.sources().iter().all(|source| source.is_mapped()));
        check(&mapped, &list);
        let copied = open(&files, Load::Copy);
        assert_eq!(copied.sources().iter().map(|s| s.private_bytes()).sum::<usize>(), bytes.len());
        check(&copied, &list);
    }

    let memory = || Part::Memory(Arc::new(bytes.clone()));
    let files = Files::named([(SINGLE.to_owned(), memory())]).unwrap();
    check(&open(&files, Load::Map), &list);
    check(&open(&files, Load::Copy), &list);

    let descriptor = |len| {
        let part = Part::File { file: fs::File::open(dir.path().join("padded")).unwrap(), offset: 5, len };
        Files::named([(SINGLE.to_owned(), part)]).unwrap()
    };
    let exact = descriptor(Some(bytes.len() as u64));
    check(&open(&exact, Load::Map), &list);
    check(&open(&exact, Load::Copy), &list);
    assert!(descriptor(None).tensors(Load::Map, &mut None).is_err(), "what is behind must not be ignored");
    assert!(descriptor(Some(1 << 20)).tensors(Load::Map, &mut None).is_err());
}

#[test]
fn shards_hold_exactly_what_the_index_says() {
    let (list, dir) = (tensors(), tempfile::tempdir().unwrap());
    let (a, b) = (file(&list[..2]), file(&list[2..]));
    let index = |first: &str, names: &[(&str, &str)]| {
        let map: Vec<String> = names.iter().map(|(name, shard)| format!("\"{name}\": \"{shard}\"")).collect();
        format!("{{\"metadata\": {{\"total_size\": 1}}, {first} \"weight_map\": {{{}}}}}", map.join(","))
    };
    let names: Vec<(&str, &str)> = list
        .iter()
        .enumerate()
        .map(|(i, t)| (t.0, if i < 2 { "a.safetensors" } else { "b.safetensors" }))
        .collect();
    write(dir.path(), &[("a.safetensors", &a), ("b.safetensors", &b), (INDEX, index("", &names).as_bytes())]);
    let files = Files::at(dir.path()).unwrap();
    assert_eq!(files.layout().unwrap(), Layout::Sharded);
    check(&files.tensors(Load::Map, &mut None).unwrap(), &list);
    check(&Files::at(dir.path().join(INDEX)).unwrap().tensors(Load::Copy, &mut None).unwrap(), &list);

    let refused = |names: &[(&str, &str)]| {
        write(dir.path(), &[(INDEX, index("", names).as_bytes())]);
        files.tensors(Load::Map, &mut None).unwrap_err().to_string()
    };
    let with = |at: usize, shard: &'static str| {
        let mut names = names.clone();
        names[at].1 = shard;
        names
    };
    assert!(refused(&names[1..]).contains("expected in no shard"));
    assert!(refused(&with(0, "b.safetensors")).contains("is not in the shard"));
    assert!(refused(&with(0, "c.safetensors")).contains("not there"));
    for path in ["../a.safetensors", "/etc/passwd", "x/../a.safetensors", "..", "c:a", "x\\\\a", ""] {
        assert!(refused(&with(0, path)).contains("plain name"), "{path}");
    }
    let mut more = names.clone();
    more.push(("absent", "a.safetensors"));
    assert!(refused(&more).contains("`absent`: is not in the shard"));
    more.push(("empty", "b.safetensors"));
    assert!(refused(&more).contains("given twice"));
}

#[cfg(unix)]
#[test]
fn symbolic_links_are_followed() {
    let (list, dir) = (tensors(), tempfile::tempdir().unwrap());
    let (blobs, snapshot) = (dir.path().join("blobs"), dir.path().join("snapshot"));
    fs::create_dir(&blobs).unwrap();
    fs::create_dir(&snapshot).unwrap();
    write(&blobs, &[("3a7bd", &file(&list))]);
    std::os::unix::fs::symlink("../blobs/3a7bd", snapshot.join(SINGLE)).unwrap();
    check(&Files::at(&snapshot).unwrap().tensors(Load::Map, &mut None).unwrap(), &list);
    check(&Files::at(snapshot.join(SINGLE)).unwrap().tensors(Load::Map, &mut None).unwrap(), &list);
}

#[test]
fn a_load_tells_how_far_it_is_and_can_be_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = file(&[("w", Dtype::U8, vec![9 << 20], vec![7; 9 << 20])]);
    write(dir.path(), &[(SINGLE, &bytes)]);
    let files = Files::at(dir.path()).unwrap();
    let mut seen = Vec::new();
    let mut tell = |done, total| {
        seen.push((done, total));
        ControlFlow::Continue(())
    };
    files.tensors(Load::Copy, &mut Some(&mut tell)).unwrap();
    let all = bytes.len() as u64;
    assert_eq!((seen.first(), seen.last()), (Some(&(0, all)), Some(&(all, all))));
    assert!(seen.len() > 3 && seen.is_sorted());

    let mut calls = 0;
    let mut stop = |_, _| {
        calls += 1;
        if calls == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let cancelled = files.tensors(Load::Copy, &mut Some(&mut stop));
    assert!(matches!(cancelled, Err(Error::Cancelled)));
    assert_eq!(calls, 2);
}

#[test]
fn a_missing_model_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let text = |result: Result<Layout, Error>| result.unwrap_err().to_string();
    assert!(text(Files::at(dir.path()).unwrap().layout()).contains("expected `model.safetensors`"));
    write(dir.path(), &[("w.safetensors", b""), ("a.gguf", b"GGUF"), ("b.GGUF", b"GGUF")]);
    assert!(text(Files::at(dir.path()).unwrap().layout()).contains("name the one to open"));
    let chosen = Files::at(dir.path().join("b.GGUF")).unwrap().layout().unwrap();
    assert_eq!(chosen, Layout::Gguf("b.GGUF".into()));
    assert!(matches!(Files::at(dir.path().join("absent")), Err(Error::Io { .. })));
    let twice = || ("a".to_owned(), Part::Memory(Arc::new(Vec::new())));
    assert!(matches!(Files::named([twice(), twice()]), Err(Error::Argument { .. })));
    let missing = Files::at(dir.path().join("w.safetensors")).unwrap().config().unwrap_err().to_string();
    assert!(missing.contains("config.json"), "{missing}");
}

fn config(text: &str) -> Config {
    Config::parse("config.json", text.as_bytes()).unwrap()
}

#[test]
fn config_values_are_typed_and_messages_name_them() {
    let c = config(
        r#"{"n": 3, "x": 1e-5, "huge": 1e39, "s": "gelu", "null": null, "neg": -1, "o": {"deep": "t"}}"#,
    );
    assert_eq!(
        (c.usize("n").unwrap(), c.usize_or("null", 7).unwrap(), c.usize_or("none", 8).unwrap()),
        (3, 7, 8)
    );
    assert_eq!((c.f32("x").unwrap(), c.f32("n").unwrap()), (1e-5, 3.0));
    assert_eq!((c.str("s").unwrap(), c.str_or("none", "d").unwrap()), ("gelu", "d"));
    assert_eq!(c.window("null", Some(4)).unwrap(), None);
    assert_eq!((c.window("none", Some(4)).unwrap(), c.window("n", None).unwrap()), (Some(4), Some(3)));
    let text = |e: Error| e.to_string();
    assert_eq!(text(c.usize("neg").unwrap_err()), "config.json: neg: expected a whole number, found -1");
    assert_eq!(text(c.usize("null").unwrap_err()), "config.json: null is missing");
    assert!(text(c.f32("huge").unwrap_err()).contains("huge: expected a finite number"));
    let deep = c.object("o").unwrap().unwrap();
    assert!(text(deep.usize("deep").unwrap_err()).contains("o.deep: expected a whole number, found \"t\""));
    assert!(c.object("null").unwrap().is_none());
}

#[test]
fn a_key_that_nobody_read_is_refused_unless_it_says_nothing() {
    let c = config(r#"{"a": 1, "off": false, "none": null, "list": [], "top_k": 50, "known": 2, "odd": 5}"#);
    assert_eq!(c.usize("a").unwrap(), 1);
    let refused = c.finish(&["known"]).unwrap_err();
    assert_eq!(refused.to_string(), "config.json: odd = 5 is not supported");
    c.finish(&["known", "odd"]).unwrap();
    assert!(config(r#"{"a": true}"#).finish(&[]).is_err());
}

#[test]
fn json_is_refused_where_it_is_ambiguous_or_too_large() {
    let parse = |text: &str| Config::parse("c", text.as_bytes()).map_err(|e| e.to_string());
    assert!(parse(r#"{"a": 1, "a": 1}"#).unwrap_err().contains("`a` is given twice"));
    assert!(parse(r#"{"o": {"a": 1, "\u0061": 2}}"#).unwrap_err().contains("given twice"));
    assert!(parse("[1]").unwrap_err().contains("expected an object, found a list"));
    assert!(parse("{} x").is_err());
    let many = format!("{{\"a\": [{}0]}}", "0,".repeat(1 << 18));
    assert!(parse(&many).unwrap_err().contains("too many values"));
    assert!(parse(&format!("{{\"a\": {}{}}}", "[".repeat(200), "]".repeat(200))).is_err());
}

#[test]
fn generation_config_falls_back_to_the_model_s_ids() {
    let c = config(r#"{"bos_token_id": 1, "eos_token_id": [2, 5], "pad_token_id": null}"#);
    let none = GenerationConfig::read(None, &c).unwrap();
    assert_eq!((none.bos_token_id, none.eos_token_ids, none.pad_token_id), (Some(1), vec![2, 5], None));
    let own = config(r#"{"eos_token_id": 7, "temperature": 0.5, "top_k": 40, "do_sample": true}"#);
    let both = GenerationConfig::read(Some(&own), &c).unwrap();
    assert_eq!(
        (both.bos_token_id, both.eos_token_ids, both.temperature, both.top_k),
        (Some(1), vec![7], Some(0.5), Some(40))
    );
    assert!(GenerationConfig::read(Some(&config(r#"{"eos_token_id": "x"}"#)), &c).is_err());
}
