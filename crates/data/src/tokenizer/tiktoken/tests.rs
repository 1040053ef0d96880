use super::super::Tokenizer;
use super::super::sentencepiece::tests::{file, goldens};
use super::*;

fn tokenizer() -> Tokenizer {
    Tokenizer::from_file(file("tiktoken.model")).unwrap()
}

#[test]
fn llama3s_pattern_gives_tiktokens_ids() {
    let tokenizer = tokenizer();
    for golden in goldens("tiktoken") {
        let ids = tokenizer.encode_plain(&golden.text).unwrap().ids;
        assert_eq!(ids, golden.ids, "{:?}", golden.text);
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), golden.decoded);
    }
}

#[test]
fn special_tokens_follow_those_of_the_file() {
    let tokenizer = tokenizer();
    let first = tokenizer.token_id("<|begin_of_text|>").unwrap();
    assert_eq!(tokenizer.vocab_size(), first as usize + 256);
    assert_eq!(tokenizer.prefix(), [first]);
    assert_eq!(tokenizer.eos_ids(), [first + 1, first + 9]);
    assert_eq!(tokenizer.encode("<|eot_id|>").unwrap().ids, [first + 9]);
    assert!(tokenizer.encode_plain("<|eot_id|>").unwrap().ids.len() > 1);
}

#[test]
fn names_of_both_releases() {
    for release in [Release::Llama3, Release::Llama31] {
        let tokens = release.special_tokens();
        let distinct: HashSet<&String> = tokens.iter().collect();
        assert_eq!((tokens.len(), distinct.len()), (256, 256));
        assert_eq!(tokens[6..8], ["<|start_header_id|>", "<|end_header_id|>"]);
        assert_eq!(tokens[9], "<|eot_id|>");
    }
    let [old, new] = [Release::Llama3, Release::Llama31].map(Release::special_tokens);
    assert_eq!(old[8], "<|reserved_special_token_4|>");
    assert_eq!(old[255], "<|reserved_special_token_250|>");
    assert_eq!(new[4], "<|finetune_right_pad_id|>");
    assert_eq!(new[5], "<|reserved_special_token_2|>");
    assert_eq!(new[11], "<|reserved_special_token_3|>");
    assert_eq!(new[255], "<|reserved_special_token_247|>");
}

#[test]
fn faults_name_the_line() {
    let good = std::fs::read(file("tiktoken.model")).unwrap();
    let text = String::from_utf8(good).unwrap();
    let error = |from: &str, to: &str| {
        assert!(text.contains(from));
        parse(text.replacen(from, to, 1).as_bytes())
            .unwrap_err()
            .to_string()
    };
    let line = |number: usize| text.lines().nth(number - 1).unwrap();
    insta::assert_snapshot!(error(line(3), "Ig=="), @"line 3: expected a token in base64 and its rank");
    insta::assert_snapshot!(error(line(3), "I*== 2"), @"line 3: the token is not base64");
    insta::assert_snapshot!(error(line(3), "I=== 2"), @"line 3: the token is not base64");
    insta::assert_snapshot!(error(line(3), " 2"), @"line 3: expected a token in base64 and its rank");
    insta::assert_snapshot!(error(line(3), "AAA= 3"), @"line 3: expected the ranks 0, 1, 2, ... in order");
    insta::assert_snapshot!(error(line(300), &line(299).replace("298", "299")), @"line 300: duplicate token");
    insta::assert_snapshot!(error(line(3), "AAAA 2"), @"byte 2 is not a token");
    assert!(parse(b"").is_err());
}

#[test]
fn base64_as_it_is_defined() {
    for (text, bytes) in [
        ("", &b""[..]),
        ("Zg==", b"f"),
        ("Zm8=", b"fo"),
        ("Zm9v", b"foo"),
        ("+/+/", b"\xFB\xFF\xBF"),
    ] {
        assert_eq!(base64(text.as_bytes()).as_deref(), Some(bytes));
    }
    for text in ["Z", "Zm8", "Z===", "====", "=m8=", "Z=8=", "Zm 8"] {
        assert_eq!(base64(text.as_bytes()), None, "{text}");
    }
}
