//! A line of arguments as words. A containerVM has no shell of its own, and its image need not have one: quotes and backslashes are a shell's, and nothing else is.

/// The words of a line; none if a quote is open at its end. POSIX, Shell Command Language, 2.2 "Quoting".
pub(super) fn split(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    // none between words
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(char) = chars.next() {
        match char {
            ' ' | '\t' | '\n' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '\'' => break,
                        char => word.push(char),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '"' => break,
                        '\\' => match chars.next()? {
                            char @ ('"' | '\\' | '$' | '`') => word.push(char),
                            char => word.extend(['\\', char]),
                        },
                        char => word.push(char),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(chars.next()?),
            char => word.get_or_insert_default().push(char),
        }
    }
    words.extend(word);
    Some(words)
}

#[cfg(test)]
mod tests {
    #[test]
    fn words_are_a_shells() {
        let check = |line, expected: &[&str]| assert_eq!(super::split(line).unwrap(), expected, "{line:?}");
        check("", &[]);
        check("  a\tb\n c ", &["a", "b", "c"]);
        check("-c 'echo \"$HOME\" > /tmp/x'", &["-c", "echo \"$HOME\" > /tmp/x"]);
        check("\"a \\\" \\\\ \\$ \\n\" b\\ c", &["a \" \\ $ \\n", "b c"]);
        check("'' \"\" a''b", &["", "", "ab"]);
        check("ü'ß'", &["üß"]);
        for open in ["'a", "\"a", "a\\", "\"a\\"] {
            assert_eq!(super::split(open), None, "{open:?}");
        }
    }
}
