(** T12. Step count: kappa_t = (1 - rho_t) K <= q allows sigma to grow by 1 / (1 - q / K) at most, so the shortest grid
    from sigma_0 to sigma_T has ceil( log(sigma_T / sigma_0) / -log(1 - q / K) ) steps; taking the largest step that is
    allowed is best for every K(sigma). *)

From Coq Require Import Reals Lra Lia.
From Coquelicot Require Import Coquelicot.
Open Scope R_scope.

Lemma geometric_bound (sigma : nat -> R) (p : R) (n : nat) :
  0 < p -> (forall k, (k < n)%nat -> p * sigma (S k) <= sigma k) -> p ^ n * sigma n <= sigma O.
Proof.
  intros Hp; induction n as [|n IH]; intros H; [simpl; lra|].
  apply Rle_trans with (p ^ n * sigma n); [|apply IH; intros k Hk; apply H; lia].
  replace (p ^ S n * sigma (S n)) with (p ^ n * (p * sigma (S n))) by (simpl; ring).
  apply Rmult_le_compat_l; [apply pow_le; lra|apply H; lia].
Qed.

(** [c] is the ceiling of that quotient: the only integer with c - 1 < x <= c. *)
Theorem t12_step_count (K q sigma_0 sigma_T : R) (c : Z) (n : nat)
  (Hq : 0 < q < K)
  (Hsigma : 0 < sigma_0 < sigma_T)
  (Hc : IZR c - 1 < ln (sigma_T / sigma_0) / - ln (1 - q / K) <= IZR c) :
  (exists sigma : nat -> R, sigma O = sigma_0 /\ sigma n = sigma_T /\
    (forall k, (k <= n)%nat -> 0 < sigma k) /\
    (forall k, (k < n)%nat -> (1 - sigma k / sigma (S k)) * K <= q))
  <-> (c <= Z.of_nat n)%Z.
Proof.
  set (p := 1 - q / K) in *.
  assert (Hp : 0 < p < 1).
  { unfold p; assert (0 < q / K) by (apply Rdiv_lt_0_compat; lra).
    assert (q / K < 1) by (apply Rlt_div_l; lra); lra. }
  assert (Hln : 0 < - ln p) by (assert (ln p < ln 1) by (apply ln_increasing; lra); rewrite ln_1 in *; lra).
  assert (Hpn : 0 < p ^ n) by (apply pow_lt; lra).
  assert (Hfactor : forall s t, 0 < t -> ((1 - s / t) * K <= q <-> p * t <= s)).
  { intros s t Ht; unfold p; split; intros H.
    - assert (H1 : 1 - s / t <= q / K) by (apply Rle_div_r; lra).
      assert (H2 : (1 - q / K) * t <= s / t * t) by (apply Rmult_le_compat_r; lra).
      replace (s / t * t) with s in H2 by (field; lra); exact H2.
    - assert (H1 : 1 - q / K <= s / t) by (apply Rle_div_r; lra).
      assert (H2 : (1 - s / t) * K <= q / K * K) by (apply Rmult_le_compat_r; lra).
      replace (q / K * K) with q in H2 by (field; lra); exact H2. }
  assert (Hreach : p ^ n * sigma_T <= sigma_0 <-> ln (sigma_T / sigma_0) / - ln p <= INR n).
  { rewrite Rle_div_l by exact Hln; rewrite ln_div by lra; split; intros H.
    - assert (E : ln (p ^ n * sigma_T) <= ln sigma_0).
      { destruct H as [H|H]; [left; apply ln_increasing; [apply Rmult_lt_0_compat; lra|exact H]|rewrite H; lra]. }
      rewrite ln_mult in E by lra; rewrite ln_pow in E by lra; lra.
    - apply Rnot_lt_le; intros H1.
      apply ln_increasing in H1; [|lra]; rewrite ln_mult in H1 by lra; rewrite ln_pow in H1 by lra; lra. }
  assert (Hceil : ln (sigma_T / sigma_0) / - ln p <= INR n <-> (c <= Z.of_nat n)%Z).
  { rewrite INR_IZR_INZ; split; intros H.
    - assert (E : IZR (c - 1) < IZR (Z.of_nat n)) by (rewrite minus_IZR; lra).
      apply lt_IZR in E; lia.
    - apply IZR_le in H; lra. }
  rewrite <- Hceil, <- Hreach; split.
  - intros (sigma & H0 & Hn & Hpos & Hstep).
    rewrite <- H0, <- Hn; apply geometric_bound; [lra|].
    intros k Hk; apply Hfactor; [apply Hpos; lia|now apply Hstep].
  - intros H; exists (fun k => Rmin sigma_T (sigma_0 / p ^ k)).
    assert (Hpk : forall k, 0 < p ^ k) by (intros k; apply pow_lt; lra).
    assert (Hs : forall k, 0 < sigma_0 / p ^ k) by (intros k; apply Rdiv_lt_0_compat; [lra|apply Hpk]).
    repeat split.
    + simpl; rewrite Rmin_right; [field|]; lra.
    + apply Rmin_left, Rle_div_r; [apply Hpk|lra].
    + intros k Hk; apply Rmin_glb_lt; [lra|apply Hs].
    + intros k Hk; apply Hfactor; [apply Rmin_glb_lt; [lra|apply Hs]|].
      assert (Hm1 := Rmin_l sigma_T (sigma_0 / p ^ S k)); assert (Hm2 := Rmin_r sigma_T (sigma_0 / p ^ S k)).
      apply Rmin_glb.
      * apply Rle_trans with (1 * sigma_T); [|lra].
        apply Rle_trans with (p * sigma_T); [apply Rmult_le_compat_l; lra|apply Rmult_le_compat_r; lra].
      * replace (sigma_0 / p ^ k) with (p * (sigma_0 / p ^ S k)) by (simpl; field; specialize (Hpk k); lra).
        apply Rmult_le_compat_l; lra.
Qed.

(** For any K(sigma): a grid [a] that always goes as far as allowed, up to sigma_T, is never behind another grid [b]. *)
Theorem t12_greedy (K : R -> R) (q sigma_T : R) (a b : nat -> R)
  (Hb_positive : forall k, 0 < b k)
  (HK : forall t, 0 < t -> 0 <= K t)
  (Hgreedy : forall k t, 0 < t <= sigma_T -> (1 - a k / t) * K t <= q -> t <= a (S k))
  (Hallowed : forall k, b (S k) <= sigma_T /\ (1 - b k / b (S k)) * K (b (S k)) <= q)
  (Hstart : b O <= a O) :
  forall k, b k <= a k.
Proof.
  induction k as [|k IH]; [exact Hstart|].
  destruct (Hallowed k) as [H1 H2]; assert (Hb := Hb_positive (S k)).
  apply Hgreedy; [lra|].
  apply Rle_trans with (2 := H2), Rmult_le_compat_r; [now apply HK|].
  assert (b k / b (S k) <= a k / b (S k)); [|lra].
  apply Rmult_le_compat_r; [left; now apply Rinv_0_lt_compat|exact IH].
Qed.
