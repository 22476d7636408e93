# Reads UNREACHED.md, then the lines of the core: file, line, how often it was reached, its text. Tells what was reached.
#
# An explanation is a line of UNREACHED.md that is indented by four: the path of a file alone, or below it a line of its
# code. It holds for one line with that text; where several are alike, each is listed. Lines of punctuation alone need none.

function end_of_range() {
    if (first) ranges[++range_count] = path ":" (first == last ? first : first "-" last)
    first = 0
}

function end_of_file() {
    if (path == "") return
    end_of_range()
    printf "%-44s %6d of %6d\n", path, reached, all
    reached_in_all += reached; in_all += all; reached = 0; all = 0
}

FILENAME ~ /UNREACHED\.md$/ {
    text = substr($0, 5)
    if (!/^    /) next
    if (text ~ /^proto\/src\/[^ ]*\.rs$/) { of = text; next }
    explained[of, text]++
    where[of, text] = FNR
    next
}

$1 != path { end_of_file(); path = $1 }

{
    all++
    if ($3 > 0) { reached++; end_of_range(); next }
    if (!first) first = $2
    last = $2
    if ($4 ~ /[A-Za-z0-9]/ && --explained[$1, $4] < 0) unexplained[++new_count] = $1 ":" $2 ": " $4
}

END {
    end_of_file()
    printf "%-44s %6d of %6d\n", "all", reached_in_all, in_all
    print "\nNever reached:"
    for (i = 1; i <= range_count; i++) print "  " ranges[i]
    for (key in explained) {
        if (explained[key] <= 0) continue
        split(key, part, SUBSEP)
        print "Reached by now, or gone, and to be taken out of fuzz/UNREACHED.md: line " where[key] ": " part[1] ": " part[2]
    }
    if (new_count) {
        print "\nNot reached, and not explained in fuzz/UNREACHED.md:"
        for (i = 1; i <= new_count; i++) print "  " unexplained[i]
        exit 1
    }
}
