//! Templates: those of models, in Jinja, and plain ones.

use simmer_data::{Conversation, Template, Tokenizer};

use super::{Folder, shown};

fn chat(source: &str) -> Result<String, String> {
    let folder = Folder::of("tied-gqa").with("chat_template.jinja", source);
    let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
    let template = match Template::named("chat", &tokenizer) {
        Ok(template) => template,
        error => return Err(folder.said(error)),
    };
    let prompt = template.prompt(&Conversation::prompt("Hi"));
    match prompt {
        Ok(prompt) => Ok(prompt.text),
        error => Err(folder.said(error)),
    }
}

#[test]
fn templates() {
    let refused = |source: &str| chat(source).unwrap_err();
    let plain = |text: &[u8]| {
        let folder = Folder::of("tied-gqa").with("t.toml", text);
        let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
        folder.said(Template::named(
            folder.at("t.toml").to_str().unwrap(),
            &tokenizer,
        ))
    };
    let looped = |body: &str, end: &str| {
        format!(
            "{{% set ns = namespace(x='x') %}}{{% for i in range(99999) %}}{body}{{% endfor %}}{end}"
        )
    };
    shown(
        "template::templates",
        &[
            (
                "a loop in a loop in a loop",
                refused(
                    "{% for i in range(99999) %}{% for j in range(99999) %}{% for k in range(99999) %}{% endfor %}{% endfor %}{% endfor %}",
                ),
            ),
            (
                "a range of 10^12",
                refused("{% for i in range(1000000000000) %}{% endfor %}"),
            ),
            (
                "a text that doubles",
                refused(&looped("{% set ns.x = ns.x ~ ns.x %}", "")),
            ),
            (
                "a list that doubles, printed",
                refused(&looped("{% set ns.x = [ns.x, ns.x] %}", "{{ ns.x }}")),
            ),
            ("a text 10^12 times", refused("{{ 'x' * 1000000000000 }}")),
            (
                "`center` to 10^12",
                refused("{{ 'x'.center(1000000000000) }}"),
            ),
            (
                "`indent` by 10^12",
                refused("{{ 'a\nb' | indent(1000000000000) }}"),
            ),
            (
                "a format of 10^12 digits",
                refused("{{ '%1000000000000d' | format(1) }}"),
            ),
            (
                "a macro that calls itself",
                refused("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"),
            ),
            (
                "parentheses in parentheses",
                refused(&format!("{{{{ {}1 }}}}", "(".repeat(100_000))),
            ),
            ("blocks in blocks", refused(&"{% if x %}".repeat(100_000))),
            ("another file", refused("{% include '/etc/passwd' %}")),
            (
                "a file of macros",
                refused("{% from '/etc/passwd' import x %}"),
            ),
            (
                "Python's way out",
                refused("{{ ''.__class__.__mro__[1].__subclasses__() }}"),
            ),
            ("no Jinja", refused("{% if %}")),
            ("a plain template that is no TOML", plain(b"[[[")),
            (
                "a plain template with an unknown key",
                plain(b"prompts = 1\n"),
            ),
            (
                "a plain template that is not UTF-8",
                plain(b"prompt = \"\xFF\"\n"),
            ),
        ],
    );
}

/// Lists in lists in lists come out, or are refused: nobody runs out of stack.
#[test]
fn nested_lists_are_survived() {
    let nested = |end: &str| {
        chat(&format!(
            "{{% set ns = namespace(x='x', y='x') %}}{{% for i in range(90000) %}}\
             {{% set ns.x = [ns.x] %}}{{% set ns.y = [ns.y] %}}{{% endfor %}}{end}"
        ))
    };
    assert_eq!(nested("done").as_deref(), Ok("done"));
    for end in [
        "{{ ns.x }}",
        "{{ ns.x == ns.y }}",
        "{{ ns.x | tojson }}",
        "{{ ns.x | string }}",
        "{{ ns.x | pprint }}",
        "{{ ns.x in [ns.y] }}",
        "{{ ([ns.x, ns.y] | sort) | length }}",
        "{{ {ns.x: 1} }}",
        "{{ ns.x ~ '' }}",
        "{{ [ns.x] | join('') }}",
        "{{ ns.x | unique | list | length }}",
        "{% if ns.x < ns.y %}{% endif %}",
        "{{ debug() }}",
        "{{ ns }}",
        "{{ ns.x | urlencode }}",
        "{{ ns.x.split('x') }}",
        "{{ raise_exception(ns.x) }}",
    ] {
        drop(nested(end));
    }
}
