//! Chat templates: byte for byte what jinja2 gives in `transformers`, and bounded whatever they say.
#![cfg(feature = "chat-template")]

use inlaid::chat::{ChatTemplate, RenderOptions, message};
use inlaid::format::files::{Files, Part};
use serde_json::{Value, json};
use std::sync::Arc;

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::new(source, Some("<s>"), Some("</s>")).unwrap()
}

/// What `source` says of a short conversation.
fn says(source: &str) -> Result<String, String> {
    let messages = json!([message("user", "Hi")]);
    template(source).render(&messages, &RenderOptions::default()).map_err(|e| e.to_string())
}

/// tests/data/chat/make.py renders every template with every conversation. Where Python refuses, so must we, though for
/// a conversation that makes no sense the words may differ.
#[test]
fn templates_render_as_jinja2_renders_them() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/chat/golden.json");
    let golden: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut texts = 0;
    for (name, case) in golden["templates"].as_object().unwrap() {
        let template = template(case["source"].as_str().unwrap());
        for (conversation, given) in golden["cases"].as_object().unwrap() {
            let options = RenderOptions {
                tools: given.get("tools"),
                documents: None,
                add_generation_prompt: given["add_generation_prompt"] == true,
                extra: given.get("extra"),
                now: golden["now"].as_u64(),
            };
            let ours = template.render(&given["messages"], &options);
            let theirs = &case["results"][conversation];
            match (theirs["text"].as_str(), ours) {
                (Some(text), ours) => {
                    assert_eq!(ours.unwrap(), text, "{name}: {conversation}");
                    texts += 1;
                }
                (None, ours) => {
                    let said = ours.expect_err(&format!("{name}: {conversation}")).to_string();
                    let (error, raised) = (theirs["error"].as_str().unwrap(), "raise_exception('");
                    if case["source"]
                        .as_str()
                        .unwrap()
                        .replace('"', "'")
                        .contains(&format!("{raised}{error}"))
                    {
                        assert!(said.contains(error), "{said} does not say: {error}");
                    }
                }
            }
        }
    }
    assert!(texts > 200, "only {texts} texts were compared");
}

#[test]
fn errors_name_the_line() {
    let said = ChatTemplate::new("a\n{% if %}", None, None).err().unwrap().to_string();
    assert!(said.starts_with("chat template: ") && said.ends_with("(line 2)"), "{said}");
    assert_eq!(
        says("\n{{ raise_exception('No ' ~ messages[0].role) }}").unwrap_err(),
        "chat template: No user (line 2)"
    );
    assert!(says("{{ messages[0].tools.name }}").unwrap_err().contains("line 1"));
    assert!(says("{{ messages[0].nothing|tojson }}").unwrap_err().contains("JSON"));
}

#[test]
fn arguments_are_checked() {
    let t = template("{{ messages|length }}");
    let render =
        |messages: Value, options: RenderOptions| t.render(&messages, &options).map_err(|e| e.to_string());
    let wrong = json!([1]);
    assert!(render(json!("hi"), RenderOptions::default()).unwrap_err().starts_with("messages"));
    assert!(render(json!(null), RenderOptions::default()).unwrap_err().starts_with("messages"));
    let options = RenderOptions { tools: Some(&wrong), ..RenderOptions::default() };
    assert!(render(json!([]), options).unwrap_err().starts_with("tools"));
    let options = RenderOptions { extra: Some(&wrong), ..RenderOptions::default() };
    assert!(render(json!([]), options).unwrap_err().starts_with("extra"));
}

/// A template is a program that comes with a file.
#[test]
fn a_hostile_template_ends_soon() {
    let loops = [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(x='xxxxxxxx') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{{ 'x' * 9999999999 }}",
        "{{ range(99999)|map('string')|join('x' * 99999) }}",
        "{% for i in range(99999) %}{{ messages|tojson(indent=255) }}{% endfor %}",
        "{{ 'a'.replace('', 'x' * 99999).replace('x', 'y' * 99999) }}",
        "{{ [1] * 9999999999 }}",
        "{{ ([1] * 9999999999)|string }}",
        "{{ ([1] * 9999999999)|tojson }}",
        "{{ ([1] * 9999999999).count(2) }}",
        "{% set s = 'x' * 30000000 %}{% for i in range(99999) %}{% if s.find('y') == 0 %}{% endif %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(31) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}",
    ];
    for source in loops {
        let start = std::time::Instant::now();
        let said = says(source).unwrap_err();
        assert!(start.elapsed().as_secs() < 60, "{source}: {said}");
    }
    assert!(says("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}").is_err());
    let deep = "{% set ns = namespace(x=[]) %}{% for i in range(50000) %}{% set ns.x = [ns.x] %}{% endfor %}";
    assert!(says(&format!("{deep}{{{{ ns.x|tojson }}}}")).is_err());
    assert!(says(&format!("{deep}{{{{ ns.x }}}}")).is_err());
}

#[test]
fn deep_templates_do_no_harm() {
    let deep = 30_000;
    for source in [
        format!("{{{{ {}1{} }}}}", "(".repeat(deep), ")".repeat(deep)),
        format!("{}{}", "{% if 1 %}".repeat(deep / 8), "{% endif %}".repeat(deep / 8)),
        format!("{{{{ {}{} }}}}", "[".repeat(deep), "]".repeat(deep)),
    ] {
        assert!(ChatTemplate::new(&source, None, None).is_err());
    }
    // What is not refused has stack enough.
    for source in [
        format!("{{{{ {}1 }}}}", "not ".repeat(deep)),
        format!("{{{{ {}1 }}}}", "-".repeat(deep)),
        format!("{{{{ 1{} }}}}", "+1".repeat(deep)),
        format!("{{{{ x{} }}}}", ".x".repeat(deep)),
        format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(deep / 4)),
    ] {
        let _ =
            ChatTemplate::new(&source, None, None).map(|t| t.render(&json!([]), &RenderOptions::default()));
    }
    assert!(ChatTemplate::new(&"x".repeat(2 << 20), None, None).is_err());
}

fn open(parts: &[(&str, &str)]) -> inlaid::Result<Option<ChatTemplate>> {
    let part = |text: &str| Part::Memory(Arc::new(text.as_bytes().to_vec()));
    let mut parts: Vec<(String, Part)> =
        parts.iter().map(|(name, text)| ((*name).to_owned(), part(text))).collect();
    parts.push(("model.safetensors".to_owned(), part("")));
    ChatTemplate::open(&Files::named(parts).unwrap())
}

#[test]
fn templates_are_found_where_models_keep_them() {
    let list = r#"{"bos_token": {"content": "<b>"}, "chat_template": [{"name": "default", "template": "plain {{ bos_token }}"},
        {"name": "tool_use", "template": "tools"}]}"#;
    let hi = json!([message("user", "Hi")]);
    let tools = json!([{"name": "f"}]);
    let with_tools = RenderOptions { tools: Some(&tools), ..RenderOptions::default() };
    let t = open(&[("tokenizer_config.json", list)]).unwrap().unwrap();
    assert_eq!(t.render(&hi, &RenderOptions::default()).unwrap(), "plain <b>");
    assert_eq!(t.render(&hi, &with_tools).unwrap(), "tools");
    let both = [("tokenizer_config.json", list), ("chat_template.jinja", "file {{ bos_token }}")];
    assert_eq!(open(&both).unwrap().unwrap().render(&hi, &with_tools).unwrap(), "file <b>");
    let one = r#"{"bos_token": null, "chat_template": "one{{ bos_token }}"}"#;
    let t = open(&[("tokenizer_config.json", one)]).unwrap().unwrap();
    assert_eq!((t.source(), t.render(&hi, &with_tools).unwrap().as_str()), ("one{{ bos_token }}", "one"));
    assert!(open(&[("tokenizer_config.json", "{}")]).unwrap().is_none());
    assert!(open(&[]).unwrap().is_none());
    assert!(open(&[("tokenizer_config.json", r#"{"chat_template": 3}"#)]).is_err());
    assert!(open(&[("tokenizer_config.json", "{")]).is_err());
}
