
// Of the crate regex: splitting at one pattern, which is all that HumanEval-X's solutions use.
mod regex {
    pub struct Regex;

    impl Regex {
        pub fn new(pattern: &str) -> Result<Regex, String> {
            if pattern == r"[.?!]\s*" { Ok(Regex) } else { Err(format!("not known here: {}", pattern)) }
        }

        pub fn split<'t>(&self, text: &'t str) -> std::vec::IntoIter<&'t str> {
            let pieces: Vec<&str> = text.split(|letter| ".?!".contains(letter)).collect();
            let trimmed = |(place, piece): (usize, &'t str)| if place == 0 { piece } else { piece.trim_start() };
            pieces.into_iter().enumerate().map(trimmed).collect::<Vec<_>>().into_iter()
        }
    }
}
