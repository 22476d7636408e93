use std::io::{self, Read, Write};

use super::*;

const HEADER: &str = "invoice_ts,stock_code,quantity,unit_price,country,invoice_no\n";

fn read(rows: &str, uppercase: bool) -> Vec<Result<Transaction, String>> {
    let options = Options { uppercase, ..Options::default() };
    Reader::new(format!("{HEADER}{rows}").as_bytes(), options)
        .unwrap()
        .map(|row| row.map_err(|error| error.to_string()))
        .collect()
}

fn header_error(header: &str, columns: Columns) -> String {
    let options = Options { columns, uppercase: false };
    match Reader::new(header.as_bytes(), options) {
        Ok(_) => panic!("{header} was taken"),
        Err(error) => error.to_string(),
    }
}

/// The error of a row with these fields, after `line 2: `.
fn rejection(row: &str) -> String {
    let rows = read(row, false);
    assert_eq!(rows.len(), 1, "{rows:?}");
    let error = rows.into_iter().next().unwrap().unwrap_err();
    error.strip_prefix("line 2: ").unwrap().to_owned()
}

#[test]
fn a_row_is_read_as_written() {
    let rows = read("2010-12-01T08:26:00,85123a,6,2.10,United Kingdom,536365", false);
    let row = rows.into_iter().next().unwrap().unwrap();
    assert_eq!(row.line, 2);
    assert_eq!(row.time, "2010-12-01T08:26:00");
    assert_eq!(row.sku.as_str(), "85123a");
    assert_eq!((row.quantity, row.stock_change()), (6, -6));
    assert_eq!(row.unit_price.unwrap().to_string(), "2.10");
    assert_eq!(row.location.as_deref(), Some("United Kingdom"));
    assert_eq!(row.invoice.as_deref(), Some("536365"));
}

#[test]
fn the_quirks_of_the_shop_data_are_taken() {
    let text = "t,15056bl,-80995,0,Eire,C581484\nt,15056BL,1,-11062.06,,\nt,M,1,0.001,UK,1\nt,M,1,0.001,UK,1\n";
    let rows: Vec<_> = read(text, true).into_iter().map(Result::unwrap).collect();
    assert!(rows.iter().take(2).all(|row| row.sku.as_str() == "15056BL"));
    assert_eq!(rows[0].stock_change(), 80_995);
    assert_eq!((rows[0].unit_price, rows[1].unit_price), (None, None));
    assert_eq!((&rows[1].location, &rows[1].invoice), (&None, &None));
    // Duplicates are two operations.
    assert_eq!((rows[2].line, rows[3].line), (4, 5));
    assert_eq!(rows[3].unit_price.unwrap().to_string(), "0.001");
}

#[test]
fn a_bad_row_is_named_and_the_next_is_read() {
    let rows = read("t,A,1,1,,\n\nt,A,x,1,,\r\nt,\"A,1,1,,\nt,A,2,1,,", false);
    assert_eq!(rows.len(), 4);
    assert!(rows[0].is_ok() && rows[3].is_ok());
    assert_eq!(rows[1].clone().unwrap_err(), r#"line 4: quantity "x": must be a whole number"#);
    assert_eq!(rows[2].clone().unwrap_err(), "line 5: column 2: a quoted field must be closed on the same line");
}

#[test]
fn every_rule_names_field_and_value() {
    let out_of_range = "must lie between -9223372036854775807 and 9223372036854775807";
    let cases = [
        (",A,1,1,,", r#"time "": must not be empty"#.to_owned()),
        ("t,A,0,1,,", r#"quantity "0": must not be 0"#.to_owned()),
        ("t,A,,1,,", r#"quantity "": must be a whole number"#.to_owned()),
        ("t,A,1.5,1,,", r#"quantity "1.5": must be a whole number"#.to_owned()),
        ("t,A,-9223372036854775808,1,,", format!(r#"quantity "-9223372036854775808": {out_of_range}"#)),
        ("t,A,9223372036854775808,1,,", format!(r#"quantity "9223372036854775808": {out_of_range}"#)),
        ("t,A,1,1e3,,", r#"unit_price "1e3": must be a decimal number such as 2.55"#.to_owned()),
        ("t,A,1,1.0123456789,,", r#"unit_price "1.0123456789": must not have more than 9 decimals"#.to_owned()),
        ("t,A,1,1,", "the line has 5 fields, but must have 6, as many as the header".to_owned()),
        ("t,A,1,1,,,", "the line must not have more than 6 fields".to_owned()),
    ];
    for (row, expected) in cases {
        assert_eq!(rejection(row), expected, "{row}");
    }
    assert!(rejection("t,,1,1,,").starts_with("SKU \"\": "));
    for price in ["1_000", "1.", ".5", "-", "٣", "0x1", " 1", &"9".repeat(40)] {
        assert!(rejection(&format!("t,A,1,{price},,")).starts_with("unit_price "), "{price}");
    }
}

#[test]
fn long_values_are_refused_and_shortened() {
    let error = rejection(&format!("t,A,1,1,{},", "ü".repeat(200)));
    assert_eq!(error, format!("location \"{}…\": must not be longer than 256 bytes", "ü".repeat(40)));
    let rows = read(&format!("{}\nt,A,1,1,,", "x".repeat(MAX_LINE_BYTES + 1)), false);
    let expected = "line 2: the line must not be longer than 65536 bytes";
    assert_eq!(rows[0].clone().unwrap_err(), expected);
    assert!(rows[1].is_ok());
}

#[test]
fn bytes_that_are_not_utf8_cost_their_row_only() {
    let mut input = HEADER.as_bytes().to_vec();
    input.extend_from_slice(b"t,A\xff,1,1,,\nt,A,1,1,,\n");
    let rows: Vec<_> = Reader::new(&input[..], Options::default()).unwrap().collect();
    let error = rows[0].as_ref().unwrap_err().to_string();
    assert_eq!(error, "line 2: the line must be UTF-8, but byte 3 of it is not");
    assert!(rows[1].is_ok());
}

#[test]
fn columns_are_found_in_any_order_case_and_name() {
    let text = "\u{feff}Qty, PRICE ,note,Timestamp,SKU\r\n3,1.5,n,2020,A\r\n";
    let mut reader = Reader::new(text.as_bytes(), Options::default()).unwrap();
    assert!(reader.has(Field::Sku) && !reader.has(Field::Invoice));
    let row = reader.next().unwrap().unwrap();
    assert_eq!((row.sku.as_str(), row.quantity, row.time.as_str()), ("A", 3, "2020"));

    let columns = Columns { sku: Some("artikel".to_owned()), ..Columns::default() };
    let text = "date,sku,Artikel,qty,price\nt,old,new,1,1\n";
    let options = Options { columns, uppercase: false };
    let mut reader = Reader::new(text.as_bytes(), options).unwrap();
    assert_eq!(reader.next().unwrap().unwrap().sku.as_str(), "new");
}

#[test]
fn a_header_without_sense_is_refused() {
    let columns = Columns::default;
    assert!(header_error("", columns()).contains("must name the columns"));
    assert!(header_error("\n", columns()).contains("must name the columns"));
    assert_eq!(
        header_error("date,qty,price", columns()),
        "column for sku: the header must have a column of the name stock_code, sku, stockcode"
    );
    assert!(header_error("date,sku,SKU,qty,price", columns()).contains("once only"));
    let mapped = Columns { invoice: Some("bill".to_owned()), ..Columns::default() };
    let error = header_error("date,sku,qty,price,invoice", mapped);
    assert_eq!(error, "column for invoice: the header must have a column of the name bill");
    assert!(header_error(&",".repeat(MAX_COLUMNS), columns()).contains("more than 1024 fields"));
    assert!(header_error(&"x".repeat(MAX_LINE_BYTES + 1), columns()).starts_with("line 1: "));
    assert!(header_error("\"date,sku", columns()).starts_with("line 1: column 1: "));
}

#[test]
fn a_failing_input_ends_the_rows_and_says_so() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("torn"))
        }
    }
    let input = format!("{HEADER}t,A,1,1,,\nt,A");
    let mut reader = Reader::new(input.as_bytes().chain(Failing), Options::default()).unwrap();
    assert!(reader.next().unwrap().is_ok());
    let error = reader.next().unwrap().unwrap_err().to_string();
    assert_eq!(error, "line 3: the file cannot be read any further: torn");
    assert!(reader.next().is_none());
}

#[test]
fn compressed_files_are_known_by_their_first_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rows.csv");
    let text = format!("{HEADER}t,A,1,1,,\n");
    for packed in [false, true] {
        let mut bytes = text.clone().into_bytes();
        if packed {
            bytes = zstd::encode_all(&bytes[..], 3).unwrap();
        }
        std::fs::File::create(&path).unwrap().write_all(&bytes).unwrap();
        let rows: Vec<_> = Reader::open(&path, Options::default()).unwrap().collect();
        assert_eq!(rows.len(), 1);
        assert!(rows[0].is_ok());
    }
    let missing = Reader::open(&directory.path().join("none"), Options::default());
    assert!(missing.is_err());
}

#[test]
fn a_truncated_compressed_file_is_an_error_not_an_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rows.csv.zst");
    let text = format!("{HEADER}{}", "t,A,1,1,,\n".repeat(1_000));
    let packed = zstd::encode_all(text.as_bytes(), 3).unwrap();
    std::fs::write(&path, &packed[..packed.len() - 3]).unwrap();
    let refused = match Reader::open(&path, Options::default()) {
        Err(_) => true,
        Ok(reader) => reader.into_iter().any(|row| matches!(row, Err(RowError::Unreadable { .. }))),
    };
    assert!(refused);
}

#[test]
fn the_seeds_of_the_fuzzer_keep_the_rules() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/csv");
    let mut count = 0;
    for seed in std::fs::read_dir(seeds).unwrap() {
        exercise(&std::fs::read(seed.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0);
}

proptest::proptest! {
    #[test]
    fn any_bytes_keep_the_rules(input: Vec<u8>) {
        exercise(&input);
        exercise(&[HEADER.as_bytes(), &input].concat());
    }

    /// Bytes that are near to rows reach deeper than any bytes do.
    #[test]
    fn anything_like_rows_keeps_the_rules(rows in "([tA\"é\r\n]|,|[-+]?[0-9]{1,20}|\\.){0,80}") {
        exercise(format!("{HEADER}{rows}").as_bytes());
    }
}
