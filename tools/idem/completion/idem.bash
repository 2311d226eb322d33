# Tab completion for idem in bash. Subcommands and options are read from idem's own help, so they are always those of the
# idem that is on the line.

# The values that an option takes, or nothing.
_idem_values() {
    local option=$1 current=$2 dir
    case $option in
    --store)
        for dir in /run/idem "/dev/shm/idem-$UID"; do
            [[ -d $dir ]] && (cd "$dir" && compgen -d -- "$current")
        done
        [[ $current == */* ]] && compgen -d -- "$current"
        ;;
    --huge) compgen -W "auto require off" -- "$current" ;;
    --durability) compgen -W "none async sync" -- "$current" ;;
    --wal) compgen -d -- "$current" ;;
    --when-full) compgen -W "refuse evict" -- "$current" ;;
    --on-dup) compgen -W "print drop count" -- "$current" ;;
    --state) compgen -W "in-progress completed abandoned lost held" -- "$current" ;;
    --on-error) compgen -W "stop pass drop" -- "$current" ;;
    --fingerprint) compgen -W "auto" -- "$current" ;;
    --group) compgen -g -- "$current" ;;
    esac
}

_idem() {
    local idem=${COMP_WORDS[0]} current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} help i
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        help=$("$idem" help 2>/dev/null | sed -n '/^commands/,/^$/s/^  \([a-z]*\) .*/\1/p')
        mapfile -t COMPREPLY < <(compgen -W "$help" -- "$current")
        return
    fi
    if [[ ${COMP_WORDS[1]} == help ]]; then
        help=$("$idem" help 2>/dev/null | sed -n '/^commands/,/^$/s/^  \([a-z]*\) .*/\1/p')
        mapfile -t COMPREPLY < <(compgen -W "$help" -- "$current")
        return
    fi
    if [[ ${COMP_WORDS[1]} == wal && $current != -* ]]; then
        case $COMP_CWORD in
        2) mapfile -t COMPREPLY < <(compgen -W "ls dump verify stat" -- "$current") ;;
        *) mapfile -t COMPREPLY < <(compgen -d -- "$current") ;;
        esac
        return
    fi
    if [[ ${COMP_WORDS[1]} == run ]]; then
        for ((i = 2; i < COMP_CWORD; i++)); do
            [[ ${COMP_WORDS[i]} == -- ]] || continue
            if declare -F _command_offset >/dev/null; then
                _command_offset $((i + 1))
            else
                mapfile -t COMPREPLY < <(if ((i + 1 == COMP_CWORD)); then compgen -c -- "$current"; else compgen -f -- "$current"; fi)
            fi
            return
        done
    fi
    # An option's value after "=" or a space; a value that may be anything is left to the user.
    if [[ $before == = ]]; then
        before=${COMP_WORDS[COMP_CWORD - 2]}
    elif [[ $current == = ]]; then
        before=${COMP_WORDS[COMP_CWORD - 1]} current=
    fi
    help=$("$idem" "${COMP_WORDS[1]}" --help 2>/dev/null | sed -n '/^options$/,/^$/p')
    if [[ $before == --* ]] && grep -q -- "^  $before [A-Za-z]" <<<"$help"; then
        mapfile -t COMPREPLY < <(_idem_values "$before" "$current")
        return
    fi
    if [[ $current == -* || -z $current ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(sed -n 's/^  \(--[a-z-]*\).*/\1/p' <<<"$help")" -- "$current")
    fi
}

complete -F _idem idem
