//! The binary interface holds still: layouts of the header's structs and the symbols of the shared library are golden
//! files. `INLAID_BLESS=1` rewrites them, for changes that the header's promise allows.

use inlaid::capi::*;
use std::fmt::Write;
use std::mem::{offset_of, size_of};
use std::path::{Path, PathBuf};
use std::process::Command;

macro_rules! layout {
    ($out:ident: $($name:ident { $($field:ident),* })*) => {$(
        writeln!($out, "{} {}", stringify!($name), size_of::<$name>()).expect("a string");
        $(writeln!($out, "{}.{} {}", stringify!($name), stringify!($field), offset_of!($name, $field)).expect("a string");)*
    )*};
}

/// Sizes and offsets of all structs, as this build lays them out.
fn layouts() -> String {
    let mut out = String::new();
    layout! { out:
        inlaid_error { struct_size, status, message }
        inlaid_engine_config { struct_size, threads, isa, log_level, budget_bytes, log, log_user, cores, n_cores }
        inlaid_engine_info { struct_size, threads, used_bytes, isa }
        inlaid_part { struct_size, fd, name, data, offset, len, release, release_user }
        inlaid_model_config { struct_size, cache_type, copy, no_tokenizer, progress, progress_user, weights, reserved }
        inlaid_memory_plan { struct_size, kv_page_tokens, mapped_bytes, private_bytes, kv_bytes_per_token }
        inlaid_model_info {
            struct_size, n_layers, d_model, n_heads, n_kv_heads, head_dim, d_ff, vocab, max_positions, cache_type,
            bos, eos, has_tokenizer, has_template, parameters, mapped_bytes, private_bytes, kv_bytes_per_token,
            load_us, tokenizer_us, family, branch, task, n_labels, reserved
        }
        inlaid_template_config { struct_size, add_generation_prompt, now_s, tools, tools_len, extra, extra_len }
        inlaid_sampler {
            struct_size, temperature, top_k, top_p, min_p, repetition_penalty, frequency_penalty, presence_penalty,
            penalty_window, n_logit_bias, logit_bias_ids, logit_bias, seed
        }
        inlaid_session_config {
            struct_size, overflow, context, keep, chunk, reserved, sampler, speculate, ignore_rules, draft
        }
        inlaid_adapter_info { struct_size, kind, rank, virtual_tokens, modules, parameters }
        inlaid_timings {
            struct_size, reserved, prefill_us, prefill_tokens, decode_us, decode_tokens, sample_us, sampled_tokens,
            draft_us, drafted_tokens, accepted_tokens, shared_tokens
        }
        inlaid_encode_config { struct_size, pooling, normalize, truncate, progress, progress_user }
        inlaid_text { text, len, second, second_len }
        inlaid_mark { id, label, start, end, probability }
        inlaid_beam_config { struct_size, beams, max_tokens, early_stopping, length_penalty, ignore_rules }
        inlaid_answer { at, len, score, reserved }
        inlaid_train_config {
            struct_size, objective, learn, lora_rank, lora_alpha, beta1, beta2, epsilon, weight_decay, clip, smoothing,
            dpo_beta, pass_tokens, n_targets, targets, seed, mask_share, mask_token, recompute, reserved, feedforward,
            prompt, n_feedforward, n_prompt, virtual_tokens, bottleneck_width, bottleneck_place, bottleneck_activation
        }
        inlaid_example { ids, n, first, group, reserved, source, n_source }
        inlaid_train_report { struct_size, reserved, step, loss, grad_norm, tokens }
        inlaid_ppo_config {
            struct_size, max_tokens, epochs, minibatch, rate, temperature, kl_coef, kl_target, kl_horizon, gamma, lam,
            clip_policy, clip_value, vf_coef, entropy_coef, whiten_rewards, mix_coef, mix_batch
        }
        inlaid_ppo_stats {
            struct_size, reserved, round, reward, kl, kl_coef, policy_loss, value_loss, entropy, clip_fraction, approx_kl,
            explained_variance, tokens, grad_norm, mix_loss
        }
        inlaid_generate_config {
            struct_size, max_tokens, ignore_end, n_stop, stop, stop_len, stop_ids, n_stop_ids
        }
    }
    out
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Compares with a golden file, or writes it.
fn golden(name: &str, found: &str) {
    let path = root().join("tests/capi").join(name);
    if std::env::var_os("INLAID_BLESS").is_some() {
        std::fs::write(&path, found).expect("a golden file can be written");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert_eq!(kept, found, "{} is not what this build gives", path.display());
}

#[test]
#[cfg(target_pointer_width = "64")]
fn layouts_are_as_promised() {
    golden("layout.txt", &layouts());
}

/// Every struct with a size is in the list above, with as many fields as the header gives it.
#[test]
fn no_struct_of_the_header_is_forgotten() {
    let header = std::fs::read_to_string(root().join("include/inlaid.h")).expect("the header");
    let layouts = layouts();
    let mut structs = 0;
    for body in header.split("typedef struct {").skip(1) {
        let (fields, rest) = body.split_once("\n} ").expect("a closed struct");
        let name = rest.split(';').next().expect("a name");
        let listed = layouts.lines().filter(|line| line.starts_with(&format!("{name}."))).count();
        let fields =
            fields.lines().filter(|line| !line.trim_start().starts_with("//") && line.ends_with(';'));
        assert_eq!(fields.count(), listed, "{name}");
        structs += 1;
    }
    assert_eq!(structs, layouts.lines().filter(|line| !line.contains('.')).count());
}

/// C sees the layouts that Rust sees.
#[test]
fn a_c_compiler_lays_structs_out_alike() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut source = "#include <inlaid.h>\n#include <stdio.h>\nint main(void) {\n".to_owned();
    for line in layouts().lines() {
        let (name, _) = line.split_once(' ').expect("a name and a number");
        let value = match name.split_once('.') {
            Some((of, field)) => format!("offsetof({of}, {field})"),
            None => format!("sizeof({name})"),
        };
        writeln!(source, "    printf(\"{name} %u\\n\", (unsigned){value});").expect("a string");
    }
    source.push_str("    return 0;\n}\n");
    let (c, exe) = (dir.path().join("layout.c"), dir.path().join("layout"));
    std::fs::write(&c, source).expect("layout.c");
    let compiled =
        Command::new("cc").arg("-I").arg(root().join("include")).arg(&c).arg("-o").arg(&exe).status();
    let Ok(status) = compiled else {
        println!("skipped: no C compiler");
        return;
    };
    assert!(status.success());
    let out = Command::new(&exe).output().expect("the program runs");
    assert_eq!(String::from_utf8_lossy(&out.stdout), layouts());
}

/// The shared library beside this test, which cargo built with it.
fn shared_library() -> PathBuf {
    let exe = std::env::current_exe().expect("a path of this test");
    exe.parent().map(Path::to_owned).expect("a directory").join("libinlaid.so")
}

/// Names of the functions that the header declares: words before a parenthesis, outside of comments and types.
#[cfg(target_os = "linux")]
fn declared(header: &str) -> impl Iterator<Item = &str> {
    let code = header.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()));
    code.filter(|line| !line.starts_with("typedef")).filter_map(|line| {
        let before = line.split_once('(')?.0;
        before.rsplit([' ', '*']).next().filter(|name| name.starts_with("inlaid_"))
    })
}

#[test]
#[cfg(target_os = "linux")]
fn only_the_functions_of_the_header_are_exported() {
    let library = shared_library();
    let Ok(out) = Command::new("nm").args(["-D", "--defined-only"]).arg(&library).output() else {
        println!("skipped: no nm");
        return;
    };
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8_lossy(&out.stdout);
    let mut names: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    names.sort_unstable();
    golden("symbols.txt", &(names.join("\n") + "\n"));
    let header = std::fs::read_to_string(root().join("include/inlaid.h")).expect("the header");
    for name in &names {
        assert!(header.contains(&format!("{name}(")), "{name} is exported and not in the header");
    }
    for name in declared(&header) {
        assert!(names.contains(&name), "{name} is in the header and not exported");
    }
}

/// Programs record the name that says which libraries may take this one's place.
#[test]
#[cfg(target_os = "linux")]
fn the_shared_library_has_its_name() {
    let Ok(out) = Command::new("readelf").arg("-d").arg(shared_library()).output() else {
        println!("skipped: no readelf");
        return;
    };
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(text.lines().any(|line| line.contains("SONAME") && line.contains("[libinlaid.so.0]")), "{text}");
}
