//! Written safetensors files, and GGUF files turned into Hugging Face directories.

use half::bf16;
use inlaid::Error;
use inlaid::format::convert::{convert, convert_in_shards};
use inlaid::format::files::{Files, Load, Part};
use inlaid::format::tensors::Tensors;
use inlaid::format::write::{Planned, safetensors, whole_file};
use kernels::DType;
use kernels::quant::dequantize_row;
use safetensors_reference::SafeTensors;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn plan(name: &str, dtype: DType, shape: &[usize]) -> Planned {
    Planned { name: name.into(), dtype, shape: shape.to_vec(), packed: None }
}

#[test]
fn the_reference_library_reads_what_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.safetensors");
    let plans =
        [plan("b", DType::BF16, &[3, 1]), plan("a", DType::F32, &[]), plan("none", DType::F16, &[0, 9])];
    let bytes: [&[u8]; 3] = [&[1, 2, 3, 4, 5, 6], &[7, 8, 9, 10], &[]];
    safetensors(&path, &plans, |i, out| out.write_all(bytes[i]).map_err(Error::io(&path))).unwrap();
    let file = fs::read(&path).unwrap();
    let read = SafeTensors::deserialize(&file).unwrap();
    assert_eq!(read.len(), 3);
    for (plan, bytes) in plans.iter().zip(bytes) {
        let tensor = read.tensor(&plan.name).unwrap();
        assert_eq!(
            (tensor.dtype().to_string().as_str(), tensor.shape()),
            (plan.dtype.name(), plan.shape.as_slice())
        );
        assert_eq!(tensor.data(), bytes);
    }
    assert!((file.len() - 10).is_multiple_of(64), "the first row starts a cache line");
    assert_eq!(names(dir.path()), ["w.safetensors"]);
}

#[test]
fn what_says_how_texts_become_vectors_is_copied() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/bert");
    let dir = tempfile::tempdir().unwrap();
    let [from, away, to] = ["from/model", "from/away", "to/model"].map(|name| dir.path().join(name));
    [&from, &away].iter().for_each(|dir| fs::create_dir_all(dir).unwrap());
    for name in ["config.json", "model.safetensors"] {
        fs::copy(golden.join(name), from.join(name)).unwrap();
    }
    let transformer = r#"{"path": "", "type": "sentence_transformers.models.Transformer"}"#;
    let pooling = r#"{"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}"#;
    let texts = [
        ("modules.json", format!("[{transformer}, {pooling}]")),
        ("1_Pooling/config.json", r#"{"pooling_mode_cls_token": true}"#.to_owned()),
        ("sentence_bert_config.json", r#"{"max_seq_length": 12}"#.to_owned()),
    ];
    fs::create_dir(from.join("1_Pooling")).unwrap();
    for (name, text) in &texts {
        fs::write(from.join(name), text).unwrap();
    }
    convert(&Files::at(&from).unwrap(), &to, DType::BF16, &mut None).unwrap();
    for (name, text) in &texts {
        assert_eq!(&fs::read_to_string(to.join(name)).unwrap(), text, "{name}");
    }
    // What is not the model's own is not written elsewhere.
    fs::write(from.join("modules.json"), r#"[{"path": "../away"}]"#).unwrap();
    fs::write(away.join("config.json"), "{}").unwrap();
    let refused = convert(&Files::at(&from).unwrap(), &to, DType::BF16, &mut None).unwrap_err();
    assert!(refused.to_string().contains("../away/config.json"), "{refused}");
    assert!(!dir.path().join("to/away").exists());
}

#[test]
fn a_write_that_fails_leaves_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.safetensors");
    fs::write(&path, "before").unwrap();
    let full = || Error::io(&path)(io::Error::from(io::ErrorKind::StorageFull));
    let plans = [plan("a", DType::F32, &[2])];
    let check = |result: Result<(), Error>, expected: &str| {
        let message = result.unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert_eq!(
            (names(dir.path()), fs::read(&path).unwrap()),
            (vec!["w.safetensors".into()], b"before".to_vec())
        );
    };
    let after_a_piece = safetensors(&path, &plans, |_, out| {
        out.write_all(&[1; 4]).map_err(Error::io(&path))?;
        Err(full())
    });
    check(after_a_piece, "no storage space");
    check(
        safetensors(&path, &plans, |_, out| out.write_all(&[1; 9]).map_err(Error::io(&path))),
        "ends at byte 9",
    );
    check(safetensors(&path, &[plans[0].clone(), plans[0].clone()], |_, _| Ok(())), "given twice");
    check(safetensors(&path, &[plan("q", DType::Q8_0, &[32])], |_, _| Ok(())), "block-quantised");
    check(safetensors(&path, &[plan("q", DType::F32, &[usize::MAX, 2])], |_, _| Ok(())), "too large");
    assert!(matches!(whole_file(&dir.path().join("no/such"), |_| Ok(())), Err(Error::Io { .. })));
}

#[test]
fn a_file_is_what_was_written_whatever_the_pieces() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pieces");
    let bytes: Vec<u8> = (0..13 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for sizes in [vec![1, (2 << 20) - 1, 2 << 20, (4 << 20) + 7, 3], vec![5 << 20, 1 << 19], vec![1000]] {
        let mut rest = &bytes[..];
        whole_file(&path, |out| {
            for size in sizes.iter().cycle() {
                let (piece, after) = rest.split_at((*size).min(rest.len()));
                out.write_all(piece).map_err(Error::io(&path))?;
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            Ok(())
        })
        .unwrap();
        assert!(fs::read(&path).unwrap() == bytes, "pieces of {sizes:?}");
    }
}

fn gguf(name: &str) -> Files {
    Files::at(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gguf").join(name)).unwrap()
}

fn values(tensors: &Tensors, name: &str) -> Vec<f32> {
    let tensor = tensors.get(name).unwrap().unwrap();
    let mut values = vec![0.0; tensor.elements()];
    dequantize_row(tensor.dtype(), tensor.bytes(), &mut values);
    values
}

#[test]
fn a_gguf_file_becomes_a_directory_of_the_same_values() {
    let (source, dir) = (gguf("llama.gguf"), tempfile::tempdir().unwrap());
    let before = source.tensors(Load::Map, &mut None).unwrap();
    for (to, torch) in [(DType::F32, "float32"), (DType::BF16, "bfloat16"), (DType::F16, "float16")] {
        let mut seen = Vec::new();
        let mut tell = |done, total| {
            seen.push((done, total));
            ControlFlow::Continue(())
        };
        convert(&source, dir.path(), to, &mut Some(&mut tell)).unwrap();
        assert!(seen.is_sorted() && seen.last().is_some_and(|(done, total)| done == total));
        assert_eq!(names(dir.path()), ["config.json", "generation_config.json", "model.safetensors"]);
        let written = Files::at(dir.path()).unwrap();
        let config = written.config().unwrap();
        assert_eq!((config.str("torch_dtype").unwrap(), config.usize("head_dim").unwrap()), (torch, 16));
        assert!(config.raw("rope_interleaved").is_none());
        assert_eq!(written.generation_config().unwrap().eos_token_ids, [2, 3]);
        let after = written.tensors(Load::Map, &mut None).unwrap();
        assert!(after.names().eq(before.names()) && !after.is_gguf());
        for (name, tensor) in after.iter() {
            assert_eq!(tensor.dtype(), to);
            let (mut old, new) = (values(&before, name), values(&after, name));
            if name.contains("q_proj") || name.contains("k_proj") {
                // A head's even rows, then its odd ones.
                let row = |i: usize| old[i * 64..][..64].to_vec();
                let order = (0..old.len() / 64).map(|i| i / 16 * 16 + i % 8 * 2 + i % 16 / 8);
                old = order.flat_map(row).collect();
            }
            // Halves of all these values round within half a unit of their last place: f16 has 11 bits, bf16 has 8.
            let unit = [(DType::F32, 0.0), (DType::F16, 2_f32.powi(-11)), (DType::BF16, 2_f32.powi(-8))];
            let unit = unit.into_iter().find(|(dtype, _)| *dtype == to).unwrap().1;
            for (old, new) in old.iter().zip(&new) {
                assert!((old - new).abs() <= unit * old.abs() + 2_f32.powi(-25), "{name}: {old} {new}");
            }
            if to == DType::BF16 {
                assert!(
                    old.iter().zip(&new).all(|(old, new)| bf16::from_f32(*old).to_f32() == *new),
                    "{name}"
                );
            }
        }
    }
}

#[test]
fn weights_beyond_a_shard_are_cut_and_indexed() {
    let (source, dir) = (gguf("llama.gguf"), tempfile::tempdir().unwrap());
    let (whole, cut) = (dir.path().join("whole"), dir.path().join("cut"));
    convert(&source, &whole, DType::F32, &mut None).unwrap();
    let total: usize =
        source.tensors(Load::Map, &mut None).unwrap().iter().map(|(_, tensor)| 4 * tensor.elements()).sum();
    let mut seen = Vec::new();
    let mut tell = |done, total| {
        seen.push((done, total));
        ControlFlow::Continue(())
    };
    // Smaller than the largest tensor, which then has a file of its own.
    let shard = total as u64 / 7;
    convert_in_shards(&source, &cut, DType::F32, shard, &mut Some(&mut tell)).unwrap();
    assert!(seen.is_sorted() && seen.last().is_some_and(|(done, total)| done == total));
    let shards = names(&cut).into_iter().filter(|name| name.contains("-of-")).collect::<Vec<_>>();
    assert!(shards.len() > 2 && !cut.join("model.safetensors").exists(), "{shards:?}");
    for (i, name) in shards.iter().enumerate() {
        assert_eq!(*name, format!("model-{:05}-of-{:05}.safetensors", i + 1, shards.len()));
        let file = fs::read(cut.join(name)).unwrap();
        let read = SafeTensors::deserialize(&file).unwrap();
        let bytes: usize = read.tensors().iter().map(|(_, tensor)| tensor.data().len()).sum();
        assert!(bytes as u64 <= shard || read.len() == 1, "{name}: {bytes}");
    }
    let index = fs::read_to_string(cut.join("model.safetensors.index.json")).unwrap();
    assert!(index.contains(&format!("\"total_size\": {total}")), "{index}");
    let [one, many] = [whole, cut].map(|dir| Files::at(dir).unwrap().tensors(Load::Map, &mut None).unwrap());
    assert!(one.names().eq(many.names()));
    for name in one.names() {
        assert_eq!(
            one.get(name).unwrap().unwrap().bytes(),
            many.get(name).unwrap().unwrap().bytes(),
            "{name}"
        );
    }
}

#[test]
fn conv1d_weights_are_transposed_back() {
    let (source, dir) = (gguf("gpt2.gguf"), tempfile::tempdir().unwrap());
    convert(&source, dir.path(), DType::F32, &mut None).unwrap();
    let (before, after) = (source.tensors(Load::Map, &mut None).unwrap(), Files::at(dir.path()).unwrap());
    let after = after.tensors(Load::Map, &mut None).unwrap();
    for (name, n, k) in
        [("attn.c_attn", 12, 4), ("attn.c_proj", 4, 4), ("mlp.c_fc", 16, 4), ("mlp.c_proj", 4, 16)]
    {
        let name = format!("transformer.h.0.{name}.weight");
        assert_eq!(after.get(&name).unwrap().unwrap().shape(), [k, n]);
        let (old, new) = (values(&before, &name), values(&after, &name));
        assert!((0..n * k).all(|i| new[i % k * n + i / k] == old[i]), "{name}");
    }
    assert_eq!(values(&before, "transformer.wpe.weight"), values(&after, "transformer.wpe.weight"));
}

#[test]
fn a_value_that_does_not_fit_is_refused() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = from.path().join("model.safetensors");
    let write = |value: f32| {
        let plans = [plan("w", DType::F32, &[2, 1])];
        let bytes = [1_f32.to_le_bytes(), value.to_le_bytes()].concat();
        safetensors(&path, &plans, |_, out| out.write_all(&bytes).map_err(Error::io(&path))).unwrap();
        fs::write(from.path().join("config.json"), r#"{"model_type": "x", "dtype": "float32"}"#).unwrap();
    };
    write(1e5);
    let source = Files::at(from.path()).unwrap();
    let message = convert(&source, to.path(), DType::F16, &mut None).unwrap_err().to_string();
    assert!(message.contains("tensor `w`: holds 100000, beyond 65504"), "{message}");
    assert!(names(to.path()).is_empty());
    convert(&source, to.path(), DType::BF16, &mut None).unwrap();
    let config = fs::read_to_string(to.path().join("config.json")).unwrap();
    assert!(config.contains("\"torch_dtype\": \"bfloat16\"") && !config.contains("float32"));
    assert!(convert(&source, to.path(), DType::Q8_0, &mut None).is_err());
}

#[test]
fn a_conversion_can_be_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gguf/llama.gguf")).unwrap();
    let source = Files::named([("m.gguf".to_owned(), Part::Memory(Arc::new(bytes)))]).unwrap();
    let mut stop = |_, _| ControlFlow::Break(());
    let result = convert(&source, dir.path(), DType::F32, &mut Some(&mut stop));
    assert!(matches!(result, Err(Error::Cancelled)));
    assert!(names(dir.path()).is_empty());
}
